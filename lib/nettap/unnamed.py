"""The local ends of sockets on Linux where no function tells them: the kernel is asked.

By sock_diag(7), which tells of one TCP socket at once, but wants both ends for that. So the local
port is chosen here, at random and from the kernel's range, as the kernel would; before Linux 6.3,
where that cannot be, the socket's inode is looked for among all sockets. That takes a millisecond
on a large machine, as the kernel walks its whole hash table, so it has a budget.
"""

import os
import struct
import time

from micropython import const

from nettap import sock_diag
from nettap.linux import attempt, decode, known, source

_TCP = const(6)
_UDP = const(17)
_SHARE = const(50)  # walks may take a fiftieth of the time,
_BURST_US = const(100_000)  # and this much in a burst
_STATES = const(0xBBF)  # all but TIME_WAIT and LISTEN
_LISTEN = const(1 << 10)
_EADDRNOTAVAIL = const(99)
_IP_LOCAL_PORT_RANGE = const(51)  # ip(7), since Linux 6.3
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"

_credit_us = _BURST_US
_credited_ms = time.ticks_ms()
_last = None, None  # a remote address, and the local one to it
_ports = None  # first and number of the ports to choose from


def connect(sock, address, udp):
    """As `linux.connect`."""
    port = 0 if udp else _choose(sock)
    error = attempt(sock, address)
    if port and error and error.errno == _EADDRNOTAVAIL:  # taken: let the kernel choose
        port = _restrict(sock, 0)
        error = attempt(sock, address)
    return error, address, port


def local_end(sock, udp, local, remote):
    """As `linux.local_end`, but for the address of a socket that is not connected."""
    if udp or not remote:
        return _walk(sock, udp, remote) or local
    return _verified(sock, local, remote) or _walk(sock, udp, remote) or (local[0], 0)


def _choose(sock):
    # The port that the kernel was asked to take, 0 if it was not asked.
    global _ports
    try:
        if _ports is None:
            _ports = 0, 0
            with open(_RANGE) as file:
                low, high = file.read().split()
            _ports = int(low), int(high) - int(low) + 1
        if _ports[0]:
            number = struct.unpack("I", os.urandom(4))[0]
            return _restrict(sock, _ports[0] + number % _ports[1])
    except (OSError, ValueError, MemoryError):  # Linux before 6.3, or no /proc
        pass
    return 0


def _restrict(sock, port):
    sock.setsockopt(0, _IP_LOCAL_PORT_RANGE, struct.pack("HH", port, port))
    return port


def _verified(sock, local, remote):
    # The local end if it is as expected: the port, and the address that last led to that host. One
    # query, of the kernel's hash table.
    global _last
    raddr, rport = decode(remote)
    address, port = local
    if not port:
        return None
    if not address:
        if raddr != _last[0]:
            _last = raddr, source(remote)
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
    try:
        inode = _inode(sock)
        states = _STATES if remote or udp else _LISTEN
        for family in (sock_diag.INET, sock_diag.INET6):
            for data, at, _ in sock_diag.sockets(_UDP if udp else _TCP, family, states):
                if sock_diag.inode(data, at) == inode:
                    return known(*sock_diag.local(data, at))
    except (OSError, MemoryError):  # no sock_diag, no /proc, or no room for the answer
        pass
    finally:
        _credit_us -= time.ticks_diff(time.ticks_us(), began)


def _inode(sock):
    return os.stat("/proc/self/fd/%d" % sock.fileno())[1]
