"""What listens on a Linux system, by sock_diag(7), with the processes that proc(5) has for it."""

from micropython import const
from nettap import sock_diag

from . import lines, proc

_PORTS_MAX = const(1024)
_CLIENTS = const("/proc/sys/net/ipv4/ip_local_port_range")
_SOCKETS = (
    (sock_diag.TCP, sock_diag.LISTEN),
    (sock_diag.UDP, sock_diag.CLOSE),  # bound, and not connected
)


def _bound():
    found = []
    for protocol, state in _SOCKETS:
        for family in (sock_diag.INET, sock_diag.INET6):
            for data, at, _ in sock_diag.sockets(protocol, family, 1 << state):
                address, port = sock_diag.local(data, at)
                if port and len(found) < _PORTS_MAX:
                    found.append([protocol, address, port, sock_diag.inode(data, at), None])
    return found


def servers():
    """Returns a list of (protocol, address, port), without UDP ports that clients are given.

    Errors: OSError without sock_diag.
    """
    first, last = [int(word) for word in next(lines(_CLIENTS)).split()]
    return [
        (protocol, address, port)
        for protocol, address, port, _, _ in _bound()
        if protocol == sock_diag.TCP or not first <= port <= last
    ]


async def listening():
    """Returns a list of [protocol, address, port, process id, its name]; None for an unknown one.

    A process that is not ours to read is unknown. Errors: OSError without sock_diag.
    """
    found = _bound()
    owners = await proc.owners([row[3] for row in found])
    for row in found:
        row[3] = owners.get(row[3])
        row[4] = proc.name(row[3]) if row[3] else None
    return found
