"""Which sockets are this process's own: the tap reports their flows, so nobody else must."""

import asyncio

from flowtable import UDP
from micropython import const
from nettap import sock_diag

from .. import log
from . import proc

_ANY_STATE = const(0xFFF)
_FLOWS_MAX = const(256)
_REMOTES_MAX = const(8)
_SLICE = const(32)  # sockets looked at before the loop has its turn


class Own:
    """Told by what the tap opens in `table`; `open` is the table's method, for others.

    A socket that is open now is known by its inode. One that came and went between two looks is
    known by its flow, as the tap has just opened it, or, if it is the agent's own and passes by
    the tap, by its remote end, where an earlier one went as well.
    """

    def __init__(self, table):
        self._table = table
        self.open = table.open
        table.open = self._opened
        self._flows = self._flows_before = self._inodes = set()
        self._remotes = []
        self.udp = {}  # the inode of each bound UDP port, of all processes
        self.blind = False  # whether the kernel does not tell these

    def close(self):
        del self._table.open

    def _opened(self, protocol, direction, laddr, lport, raddr, rport, app=0):
        if len(self._flows) < _FLOWS_MAX:
            remote = sock_diag.plain(raddr or b""), rport
            self._flows.add(lport if protocol == UDP else (lport,) + remote)
        return self.open(protocol, direction, laddr, lport, raddr, rport, app)

    async def look(self):
        """Looks at what this process has open now."""
        self._flows, self._flows_before = set(), self._flows
        self._inodes = set(proc.inodes("self"))
        try:
            found = {}
            for family in (sock_diag.INET, sock_diag.INET6):
                bound = sock_diag.sockets(UDP, family, _ANY_STATE)
                for turn, (data, at, _) in enumerate(bound):
                    found[sock_diag.local(data, at)[1]] = sock_diag.inode(data, at)
                    if turn % _SLICE == _SLICE - 1:
                        await asyncio.sleep_ms(0)
            self.udp = found
            self.blind = False
        except OSError as error:  # many a kernel is built with TCP's only
            if not self.blind:
                log.warning("UDP sockets of other programs are not seen: errno %d" % error.errno)
            self.blind = True

    def has(self, inode, lport, remote):
        """Whether a TCP socket is own. `remote` is (address, port), `inode` 0 of a closed one."""
        if inode and inode not in self._inodes:  # it may be new, and so may be one of ours
            self._inodes = set(proc.inodes("self"))
        # The tap cannot always tell the local port.
        tapped = any(
            (port,) + remote in flows
            for flows in (self._flows, self._flows_before)
            for port in (lport, 0)
        )
        if inode in self._inodes and not tapped and remote not in self._remotes:
            self._remotes = self._remotes[1 - _REMOTES_MAX :] + [remote]
        return tapped or inode in self._inodes or not inode and remote in self._remotes

    def has_port(self, lport):
        """Whether a UDP port is own."""
        tapped = lport in self._flows or lport in self._flows_before
        return tapped or self.udp.get(lport) in self._inodes
