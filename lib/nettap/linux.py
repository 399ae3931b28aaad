"""Where sockets end, on Linux: addresses are `sockaddr` structures; the kernel knows local ends.

MicroPython has no getsockname. Where the port has `ffi`, libc's is called. Elsewhere the socket's
inode is looked for among all sockets, by sock_diag(7). That takes a millisecond or more, as the
kernel walks its whole hash table, so one look-up serves all sockets that wait for it.
"""

import os
import socket
import time

from micropython import const

_SHARE = const(50)  # look-ups may take a fiftieth of the time,
_BURST_US = const(1_000_000)  # and this much in a burst, some hundred connections and more
_STATES = const(0xBBF)  # all but TIME_WAIT and LISTEN
_SOCKADDR = const(28)  # struct sockaddr_in6

_credit_us = _BURST_US
_credited_ms = None
_getsockname = None


def decode(address):
    """(address as 4 or 16 bytes, port) of what `connect` takes and `accept` returns."""
    fields = socket.sockaddr(address)
    return fields[1], fields[2]


def numeric(address, getaddrinfo):
    """The address as `connect` gets it: names are resolved before, here."""
    return address


def local_end(sock, udp, v6):
    """(address, port) of the local end of a native socket; None where it cannot be told.

    False where that takes long: `local_ends` tells it of many sockets at once.
    """
    global _getsockname
    if _getsockname is None:
        _getsockname = _libc_getsockname()
    if _getsockname:
        return _ask_libc(sock)
    return _ask_kernel((sock,), udp, v6)[0] if udp else False


def affords():
    """Whether `local_ends` would stay within its share of the time now."""
    global _credit_us, _credited_ms
    now = time.ticks_ms()
    if _credited_ms is not None:
        earned = max(0, time.ticks_diff(now, _credited_ms)) * (1000 // _SHARE)
        _credit_us = min(_BURST_US, _credit_us + earned)
    _credited_ms = now
    return _credit_us > 0


def local_ends(socks, v6):
    """What `local_end` is, for a list of TCP sockets of one family: a list."""
    global _credit_us
    began = time.ticks_us()
    ends = _ask_kernel(socks, False, v6)
    _credit_us -= time.ticks_diff(time.ticks_us(), began)
    return ends


def _libc_getsockname():
    try:
        import ffi

        return ffi.open("libc.so.6").func("i", "getsockname", "ipp")
    except (ImportError, OSError):
        return False


def _ask_libc(sock):
    address = bytearray(_SOCKADDR)
    size = bytearray(_SOCKADDR.to_bytes(4, "little"))
    return decode(address) if _getsockname(sock.fileno(), address, size) == 0 else None


def _ask_kernel(socks, udp, v6):
    from nettap import sock_diag  # where there is ffi it is not needed

    ends = [None] * len(socks)
    try:
        places = {_inode(sock): i for i, sock in enumerate(socks)}
        protocol = sock_diag.UDP if udp else sock_diag.TCP
        family = sock_diag.INET6 if v6 else sock_diag.INET
        for data, at, _ in sock_diag.sockets(protocol, family, _STATES):
            inode = sock_diag.inode(data, at)
            if inode in places:
                ends[places[inode]] = sock_diag.local(data, at)
    except (OSError, MemoryError):  # no sock_diag, no /proc, or no room for the answer
        pass
    return ends


def _inode(sock):
    try:
        return os.stat("/proc/self/fd/%d" % sock.fileno())[1]
    except OSError:  # closed below us
        return None
