"""What listens on a Linux system, by sock_diag(7), with the processes that proc(5) has for it.

A kernel may be built without sock_diag, or without that of UDP. Then proc(5) tells what listens.
"""

import sys

from micropython import const
from nettap import sock_diag

from . import lines, proc

_PORTS_MAX = const(1024)
_CLIENTS = const("/proc/sys/net/ipv4/ip_local_port_range")
_PROC = const("/proc/net/")
_FAMILIES = {sock_diag.INET: "", sock_diag.INET6: "6"}  # and how their files in it end
_SOCKETS = (
    (sock_diag.TCP, sock_diag.LISTEN),
    (sock_diag.UDP, sock_diag.CLOSE),  # bound, and not connected
)


def _bound():
    found = []
    for protocol, state in _SOCKETS:
        for family in _FAMILIES:
            try:
                sockets = [
                    sock_diag.local(data, at) + (sock_diag.inode(data, at),)
                    for data, at, _ in sock_diag.sockets(protocol, family, 1 << state)
                ]
            except OSError:
                sockets = _in_proc(protocol, family, state)
            for address, port, inode in sockets:
                if port and len(found) < _PORTS_MAX:
                    found.append([protocol, address, port, inode, None])
    return found


def _in_proc(protocol, family, state):
    # Yields (address, port, inode), as sock_diag would; of TCP what listens comes first. Without
    # IPv6 there is no file.
    name = "tcp" if protocol == sock_diag.TCP else "udp"
    try:
        for _, line in zip(range(_PORTS_MAX), lines(_PROC + name + _FAMILIES[family])):
            fields = line.split()
            if len(fields) > 9 and fields[3] == "%02X" % state:
                end, _, port = fields[1].partition(":")
                words = [int(end[at : at + 8], 16) for at in range(0, len(end), 8)]
                address = b"".join([word.to_bytes(4, sys.byteorder) for word in words])
                yield sock_diag.plain(address), int(port, 16), int(fields[9])
    except OSError:
        if family == sock_diag.INET:
            raise


def servers():
    """Returns a list of (protocol, address, port), without UDP ports that clients are given.

    Errors: OSError without sock_diag and /proc/net.
    """
    first, last = [int(word) for word in next(lines(_CLIENTS)).split()]
    return [
        (protocol, address, port)
        for protocol, address, port, _, _ in _bound()
        if protocol == sock_diag.TCP or not first <= port <= last
    ]


async def listening():
    """Returns a list of [protocol, address, port, process id, its name]; None for an unknown one.

    A process that is not ours to read is unknown. Errors: OSError without sock_diag and /proc/net.
    """
    found = _bound()
    owners = await proc.owners([row[3] for row in found])
    for row in found:
        row[3] = owners.get(row[3])
        row[4] = proc.name(row[3]) if row[3] else None
    return found
