"""The connections of all programs on Linux, into the flow table, by sock_diag(7).

TCP's own counters give the bytes. A connection that comes and goes between two looks is seen as
the kernel tells of sockets that go, older kernels only an administrator (CAP_NET_ADMIN).
"""

import asyncio
import time

from flowtable import IN, OUT, TCP, UDP
from micropython import const
from nettap import netlink, protocols, sock_diag

from .. import log

_PERIOD_MS = const(1000)
_PERIOD_MAX_MS = const(10000)
_SHARE = const(250)  # a look may take this part of the time
_SOCKETS_MAX = const(1024)
_SLICE = const(32)  # sockets looked at before the loop has its turn
_STATES = const(0xB37)  # of TCP: all but SYN_RECV, TIME_WAIT, CLOSE, LISTEN
_CONNECTED = const(0x2)  # of UDP
_FAMILIES = (sock_diag.INET, sock_diag.INET6)
_RECEIVE = const(4096)
_LISTENING_MS = const(5)  # between two looks at what listens
_MAX = const(0xFFFFFFFF)

# What is kept of a socket.
_ROUND = const(0)
_RECEIVED = const(1)
_SENT = const(2)
_TOKEN = const(3)
_FLOW = const(4)
_DIALS = const(5)  # whether it had no answer yet


class Connections:
    """With `udp`, connected UDP sockets are reported as well, without bytes."""

    udp = False

    def __init__(self, table, own, owners):
        self._table = table
        self._own = own
        self._owners = owners
        self._sockets = {}  # by cookie
        self._over = set()  # cookies of those that went since a look began
        self._round = 0
        self._looked = False  # whether what was there before is known
        self._tries = {}  # (round, whether its socket was seen) of each that began, by its ends
        self._ports = self._ports_before = {}  # that listen, with the inode
        self._listened = 0
        try:
            self._gone = sock_diag.destroyed()
            self._gone.setblocking(False)
        except OSError:
            self._gone = None

    async def run(self):
        """Runs for ever. Where the kernel has no sock_diag, it is not asked again."""
        try:
            await self.look()
        except OSError as error:
            if self._round > 1:  # it did answer before, and will again
                raise
            text = "TCP connections of other programs are not seen: errno %d"
            log.warning(text % error.errno)
            while True:  # what is own is still to be told from others' datagrams
                self._tries.clear()
                await asyncio.sleep_ms(_PERIOD_MS)
                await self._own.look()
        while True:
            began = time.clock()  # of this process, not of those that wait beside it
            await self.look()
            cost_ms = int((time.clock() - began) * 1000 * _SHARE)
            await asyncio.sleep_ms(min(max(_PERIOD_MS, cost_ms), _PERIOD_MAX_MS))

    async def run_gone(self):
        """Runs for ever: takes the last counts of each socket that goes."""
        while self._gone:
            await netlink.readable(self._gone)
            try:
                received = self._gone.recv(_RECEIVE)
            except OSError:  # the kernel had no room for some: they are lost
                continue
            for data, at, end in sock_diag.received(received):
                self._last(data, at, end)

    def tried(self, laddr, lport, raddr, rport):
        """Told of each connection that begins from here.

        One that is refused may leave no socket behind by which it could be seen.
        """
        ends = laddr, lport, raddr, rport
        if ends not in self._tries:
            self._try(ends, False)

    def _try(self, ends, seen):
        if ends in self._tries or len(self._tries) < _SOCKETS_MAX:
            self._tries[ends] = self._round, seen

    def close(self):
        if self._gone:
            self._gone.close()

    async def look(self):
        """Looks at all sockets. Errors: OSError without sock_diag."""
        self._round += 1
        self._over = set()
        await self._own.look()
        self._listen()
        turn = 0
        udp = self.udp and not self._own.blind
        for protocol, states in ((TCP, _STATES), (UDP, _CONNECTED if udp else 0)):
            for family in _FAMILIES if states else ():
                for data, at, end in sock_diag.sockets(protocol, family, states, protocol == TCP):
                    self._see(protocol, data, at, end)
                    turn += 1
                    if turn % _SLICE == 0:
                        await asyncio.sleep_ms(0)
                await asyncio.sleep_ms(0)
        for ends, (began, seen) in list(self._tries.items()):
            if began < self._round - 1:
                del self._tries[ends]
                laddr, lport, raddr, rport = ends
                if not seen and not self._own.has(0, lport, (raddr, rport)):
                    self._own.open(TCP, OUT, laddr, lport, raddr, rport, protocols.by_port(rport))
        if not self._gone or len(self._sockets) >= _SOCKETS_MAX:
            for cookie, socket in list(self._sockets.items()):
                if socket[_ROUND] != self._round:
                    del self._sockets[cookie]
        self._looked = True

    def _listen(self):
        self._listened = time.ticks_ms()
        self._ports_before = self._ports
        self._ports = {
            sock_diag.local(data, at)[1]: sock_diag.inode(data, at)
            for family in _FAMILIES
            for data, at, _ in sock_diag.sockets(TCP, family, 1 << sock_diag.LISTEN)
        }

    def _see(self, protocol, data, at, end):
        cookie = sock_diag.cookie(data, at)
        if cookie in self._over:  # it was still there when the kernel answered
            return
        socket = self._sockets.get(cookie)
        if socket and socket[_DIALS]:  # its SYN is sent again, or it tries another server
            ends = sock_diag.local(data, at) + sock_diag.remote(data, at)
            self._try(ends, True)
            if socket[_FLOW] and socket[_FLOW][2:6] != ends:
                socket = None
        transferred = sock_diag.transferred(data, at, end) if protocol == TCP else (0, 0)
        if transferred is None:
            return
        if socket is None:
            if len(self._sockets) >= _SOCKETS_MAX:
                return
            socket = self._sockets[cookie] = self._new(protocol, data, at)
            if self._round == 1:  # was there before: only what it does from now on counts
                socket[_RECEIVED], socket[_SENT] = transferred
            else:
                self._open(socket, sock_diag.inode(data, at))
        socket[_ROUND] = self._round
        socket[_DIALS] = protocol == TCP and sock_diag.state(data, at) == sock_diag.SYN_SENT
        self._count(socket, transferred, sock_diag.inode(data, at))

    def _last(self, data, at, end):
        transferred = sock_diag.transferred(data, at, end)
        cookie = sock_diag.cookie(data, at)
        if len(self._over) < _SOCKETS_MAX:
            self._over.add(cookie)
        socket = self._sockets.pop(cookie, None)
        if socket is None:
            if not (self._looked and sock_diag.remote(data, at)[1] and transferred):
                return  # it may have been there before; it listened, or was never connected
            socket = self._new(TCP, data, at)
            self._open(socket, 0)
        self._count(socket, transferred, 0)

    def _new(self, protocol, data, at):
        laddr, lport = sock_diag.local(data, at)
        raddr, rport = remote = sock_diag.remote(data, at)
        way = OUT
        if protocol == UDP:
            own = self._own.has_port(lport)
        else:
            own = self._own.has(sock_diag.inode(data, at), lport, remote)
            ends = laddr, lport, raddr, rport
            if ends not in self._tries and self._hears(lport):
                way = IN
            else:  # `tried` may be told later than this
                self._try(ends, True)
        app = protocols.by_port(rport if way == OUT else lport)
        flow = None if own else (protocol, way, laddr, lport, raddr, rport, app)
        return [0, 0, 0, 0, flow, False]

    def _hears(self, port):
        if port not in self._ports:
            if time.ticks_diff(time.ticks_ms(), self._listened) > _LISTENING_MS:
                self._listen()
        return port in self._ports or port in self._ports_before

    def _open(self, socket, inode):
        if not socket[_FLOW]:
            return
        protocol, way, _, lport = socket[_FLOW][:4]
        socket[_TOKEN] = self._own.open(*socket[_FLOW])
        if protocol == UDP:
            self._table.count_out(socket[_TOKEN], 0)  # one sighting
        if way == IN:  # as long as nobody has accepted it, it belongs to the one that listens
            inode = inode or self._ports.get(lport) or self._ports_before.get(lport, 0)
        self._owners.note(protocol, lport, inode)

    def _count(self, socket, transferred, inode):
        received, sent = [(now - before) & _MAX for now, before in zip(transferred, socket[1:3])]
        if received > _MAX >> 1:  # a byte too many was counted before (sock_diag.transferred)
            received = 0
        socket[_RECEIVED], socket[_SENT] = transferred
        if socket[_FLOW] and (received or sent):
            if not self._table.count_in(socket[_TOKEN], received):
                self._open(socket, inode)
                self._table.count_in(socket[_TOKEN], received)
            self._table.count_out(socket[_TOKEN], sent)
