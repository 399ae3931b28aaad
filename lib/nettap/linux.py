"""Where sockets end, on Linux: addresses are `sockaddr` structures; the kernel knows local ends.

MicroPython has no getsockname. Where the port has `ffi`, libc's is called. Elsewhere the kernel is
asked by sock_diag(7). It tells of one TCP socket at once, but wants both ends for that. So the
local port is chosen here, at random and from the kernel's range, as the kernel would; before Linux
6.3, where that cannot be, the socket's inode is looked for among all sockets. That takes a
millisecond on a large machine, as the kernel walks its whole hash table, so it has a budget.
"""

import os
import socket
import struct
import time

import micropython
from micropython import const

_TCP = const(6)
_UDP = const(17)
_SHARE = const(50)  # walks may take a fiftieth of the time,
_BURST_US = const(100_000)  # and this much in a burst
_STATES = const(0xBBF)  # all but TIME_WAIT and LISTEN
_LISTEN = const(1 << 10)
_SOCKADDR = const(28)  # struct sockaddr_in6
_GET_FILENO = const(10)  # py/stream.h
_EADDRNOTAVAIL = const(99)
_IP_LOCAL_PORT_RANGE = const(51)  # ip(7), since Linux 6.3
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"

_credit_us = _BURST_US
_credited_ms = time.ticks_ms()
_getsockname = None  # libc's; False where there is none
_last = None, None  # a remote address, and the local one to it
_ports = None  # first and number of the ports to choose from


def decode(address):
    """(address as 4 or 16 bytes, port) of what `connect` takes and `accept` returns."""
    fields = socket.sockaddr(address)
    return fields[1], fields[2]


def numbered(number, sock):
    """What answers in the place of `sock.ioctl`, and at once, if it is asked for a file number."""
    general = type(sock).ioctl

    @micropython.viper
    def ioctl(request: int, argument):
        if request == _GET_FILENO:
            return number
        return general(sock, request, argument)

    return ioctl


def connect(sock, address, udp):
    """Connect a native socket; (OSError or None, the address, the local port or 0).

    The port is what the kernel was asked for: only `local_end` knows what it took.
    """
    port = 0 if udp else _choose(sock)
    error = _connect(sock, address)
    if port and error and error.errno == _EADDRNOTAVAIL:  # taken: let the kernel choose
        port = _restrict(sock, 0)
        error = _connect(sock, address)
    return error, address, port


def local_end(sock, udp, local, remote):
    """(address or None, port or 0) of the local end of a native socket, as far as can be told.

    `local` is what is known or expected of it. `remote` is the other end, None of a socket that
    listens or is bound.
    """
    if _libc():
        end = _ask_libc(sock) or local
    elif udp or not remote:
        end = _walk(sock, udp, remote) or local
    else:
        end = _verified(sock, local, remote) or _walk(sock, udp, remote) or (local[0], 0)
    if udp and remote and not end[0]:
        end = _source(remote), end[1]
    return end


def _connect(sock, address):
    try:
        sock.connect(address)
    except OSError as error:
        return error


def _choose(sock):
    # The port that the kernel was asked to take, 0 if it was not asked.
    global _ports
    try:
        if _ports is None:
            _ports = 0, 0
            with open(_RANGE) as file:
                low, high = file.read().split()
            _ports = int(low), int(high) - int(low) + 1
        if _ports[0] and not _libc():
            number = struct.unpack("I", os.urandom(4))[0]
            return _restrict(sock, _ports[0] + number % _ports[1])
    except (OSError, ValueError, MemoryError):  # Linux before 6.3, or no /proc
        pass
    return 0


def _restrict(sock, port):
    sock.setsockopt(0, _IP_LOCAL_PORT_RANGE, struct.pack("HH", port, port))
    return port


def _libc():
    global _getsockname
    if _getsockname is None:
        try:
            import ffi

            _getsockname = ffi.open("libc.so.6").func("i", "getsockname", "ipp")
        except (ImportError, OSError):
            _getsockname = False
    return _getsockname


def _ask_libc(sock):
    address = bytearray(_SOCKADDR)
    size = bytearray(_SOCKADDR.to_bytes(4, "little"))
    if _getsockname(sock.fileno(), address, size) == 0:
        return _end(*decode(address))


def _end(address, port):
    return address if any(address) else None, port


def _source(remote):
    # The address that datagrams to there go from: of a socket that is connected, nothing is sent.
    probe = socket.socket(socket.sockaddr(remote)[0], socket.SOCK_DGRAM)
    try:
        return None if _connect(probe, remote) else local_end(probe, True, (None, 0), None)[0]
    finally:
        probe.close()


def _verified(sock, local, remote):
    # The local end if it is as expected: the port, and the address that last led to that host. One
    # query, of the kernel's hash table.
    global _last
    from nettap import sock_diag

    raddr, rport = decode(remote)
    address, port = local
    if not port:
        return None
    if not address:
        if raddr != _last[0]:
            _last = raddr, _source(remote)
        address = _last[1]
    if address and sock_diag.inode_of(_TCP, address, port, raddr, rport) == _inode(sock):
        return address, port
    _last = None, None


def _walk(sock, udp, remote):
    # The local end, looked for among all sockets.
    global _credit_us, _credited_ms
    began = time.ticks_us()
    now = time.ticks_ms()
    earned = max(0, time.ticks_diff(now, _credited_ms)) * (1000 // _SHARE)
    _credit_us = min(_BURST_US, _credit_us + earned)
    _credited_ms = now
    if _credit_us <= 0:
        return None
    from nettap import sock_diag  # where there is ffi it is not needed

    try:
        inode = _inode(sock)
        states = _STATES if remote or udp else _LISTEN
        for family in (sock_diag.INET, sock_diag.INET6):
            for data, at, _ in sock_diag.sockets(_UDP if udp else _TCP, family, states):
                if sock_diag.inode(data, at) == inode:
                    return _end(*sock_diag.local(data, at))
    except (OSError, MemoryError):  # no sock_diag, no /proc, or no room for the answer
        pass
    finally:
        _credit_us -= time.ticks_diff(time.ticks_us(), began)


def _inode(sock):
    return os.stat("/proc/self/fd/%d" % sock.fileno())[1]
