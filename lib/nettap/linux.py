"""Where sockets end, on Linux: addresses are `sockaddr` structures; the kernel knows local ends.

MicroPython has no getsockname. Where the port has `ffi`, libc's is called. Elsewhere the socket's
inode is looked up in /proc/net (proc(5)). To read /proc/net/tcp takes milliseconds, as the kernel
walks its whole hash table, so look-ups have a share of the time: what is beyond stays unknown.
"""

import os
import socket
import time

from micropython import const

_SHARE = const(100)  # look-ups may take a hundredth of the time,
_BURST_US = const(2_000_000)  # and this much at once
_CHUNK = const(4096)
_MAX_CHUNKS = const(16)  # some 430 sockets
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
    """(address, port) of the local end of a native socket; None where it cannot be told."""
    global _getsockname
    if _getsockname is None:
        _getsockname = _libc_getsockname()
    if _getsockname:
        return _ask_libc(sock)
    path = "/proc/net/" + ("udp" if udp else "tcp") + ("6" if v6 else "")
    return _find(path, sock) if _afford() else None


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


def _afford():
    global _credit_us, _credited_ms
    now = time.ticks_ms()
    if _credited_ms is not None:
        earned = max(0, time.ticks_diff(now, _credited_ms)) * (1000 // _SHARE)
        _credit_us = min(_BURST_US, _credit_us + earned)
    _credited_ms = now
    return _credit_us > 0


def _find(path, sock):
    global _credit_us
    began = time.ticks_us()
    try:
        inode = b"%d" % os.stat("/proc/self/fd/%d" % sock.fileno())[1]
        with open(path, "rb") as table:
            return _scan(table, inode)
    except OSError:  # no /proc, or the application has closed the socket
        return None
    finally:
        _credit_us -= time.ticks_diff(time.ticks_us(), began)


def _scan(table, inode):
    mark = b" " + inode + b" "
    rest = b""
    for _ in range(_MAX_CHUNKS):
        chunk = table.read(_CHUNK)
        if not chunk:
            break
        chunk = rest + chunk
        at = chunk.find(mark)
        while at >= 0:
            fields = chunk[chunk.rfind(b"\n", 0, at) + 1 : at + len(mark)].split()
            if len(fields) == 10 and fields[9] == inode:
                address, port = fields[1].split(b":")
                return _unhex(address), int(port, 16)
            at = chunk.find(mark, at + 1)
        rest = chunk[chunk.rfind(b"\n") + 1 :]
    return None


def _unhex(text):
    # Words of 32 bits, each printed as a number: backwards on a little-endian machine.
    data = bytearray(len(text) // 2)
    for i in range(len(data)):
        at = 2 * (i ^ 3)
        data[i] = int(text[at : at + 2], 16)
    return bytes(data)
