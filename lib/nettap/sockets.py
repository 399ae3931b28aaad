"""The tap in the socket layer: sees connections and counts their bytes, for a sink.

`install(sink)` puts a replacement of the module `socket` (and `usocket`) in place; do it before
anything that imports it at its top. An application's sockets are then proxies with the stream
protocol, which poll, asyncio and TLS take like native ones. It is visibility, not enforcement:
code that keeps the native module passes by. Sockets that are not TCP or UDP over IP are native.

A sink has open(protocol, direction, laddr, lport, raddr, rport, app) -> token > 0 or -1,
count_in(token, size) and count_out(token, size) -> 1, or 0 for a token that is stale, and
set_app(token, app), as `flowtable.FlowTable`. If `no_raise` is true on it, its two counting
functions promise not to raise. Other errors of a sink are swallowed and counted in `errors`.

docs/nettap.md says what is seen, and where a proxy differs from a native socket.
"""

import io
import select
import socket as _native
import sys

from micropython import const
from nettap import front, hosts, protocols
from nettap.counting import PEEK, counting
from nettap.hosts import host_name
from nettap.protocols import app_name

_TCP = const(6)
_UDP = const(17)
_IN = const(0)
_OUT = const(1)
_MAX_LISTENING = const(16)
_KIND = const(15)  # Linux keeps flags above the socket type
_EINVAL = const(22)
# Requests of the stream protocol, py/stream.h.
_POLL = const(3)
_CLOSE = const(4)
_GET_FILENO = const(10)

_SENT = ("send", "write")  # return the size; so do those that fill a buffer
_FILLED = ("readinto", "recv_into")
_RECEIVED = ("recv", "read", "readline")  # return the bytes
_COUNTED = _SENT + _FILLED + _RECEIVED
_MODULES = ("socket", "usocket")

include_own = False  # whether own_socket() is reported as well
local_address = None  # a function of the remote address that gives the interface's, as bytes
errors = 0  # swallowed inside the tap

_tap = None
_listening = []


class _Tap:
    def __init__(self, sink):
        if hasattr(_native, "sockaddr"):
            from nettap import linux as port
        else:
            from nettap import board as port
        self.port = port
        self.sink = sink
        self.replaced = {name: sys.modules[name] for name in _MODULES if name in sys.modules}
        safe = getattr(sink, "no_raise", False)
        counts = (sink.count_in, sink.count_out)
        self.ways = [counting(count if safe else _guarded(count)) for count in counts]


def _guarded(count):
    def guarded(token, size):
        try:
            return count(token, size)
        except Exception:
            _swallow()
            return 1

    return guarded


def _swallow():
    global errors
    errors += 1


def install(sink):
    """Put the tap in. Errors: RuntimeError when it is in already."""
    global _tap
    if _tap:
        raise RuntimeError("the tap is in already: call uninstall() first")
    for name in dir(_native):
        if not name.startswith("__"):
            setattr(front, name, getattr(_native, name))
    front.__name__ = "socket"
    front.socket = Socket
    front.getaddrinfo = _getaddrinfo
    _tap = _Tap(sink)
    for name in _MODULES:
        sys.modules[name] = front


def uninstall():
    """Take the tap out. Proxies that are open go on working, uncounted, for good."""
    global _tap
    if not _tap:
        return
    for name in _MODULES:
        if name in _tap.replaced:
            sys.modules[name] = _tap.replaced[name]
        else:
            del sys.modules[name]
    for stop, _, _, _ in _tap.ways:
        stop()
    _tap = None
    _listening.clear()
    hosts.forget()


def own_socket(*args):
    """A socket of the agent's own: native, so not reported, unless `include_own`."""
    return Socket(*args) if include_own else _native.socket(*args)


def listening():
    """The sockets that listen, or are bound in UDP, now: a list of (protocol, address, port).

    The address is None for all interfaces. The last 16 are kept.
    """
    return [entry[1:] for entry in _listening]


def _getaddrinfo(host, *rest):
    found = _native.getaddrinfo(host, *rest)
    try:
        for entry in found:
            hosts.remember(_tap.port.decode(entry[-1])[0], host)
    except Exception:
        _swallow()
    return found


def _known(address):
    return address if any(address) else None  # all zeros: any interface


class _Stream(io.IOBase):
    # A proxy for a native stream. Methods that move bytes are wrapped at their first use.

    def __getattr__(self, name):
        method = getattr(self._native, name)
        if name == "sendall":
            return _whole(method, self._missed_out)
        if name not in _COUNTED:
            return method
        way, missed = (_OUT, self._missed_out) if name in _SENT else (_IN, self._missed_in)
        _, _, sized, data = self._tap.ways[way]
        method = (data if name in _RECEIVED else sized)(method, missed)
        setattr(self, name, method)
        return method

    def __repr__(self):
        return repr(self._native)

    def ioctl(self, request, argument):
        if request == _CLOSE:
            self.close()
            return 0
        if request == _GET_FILENO and hasattr(self._native, "fileno"):
            return self._native.fileno()
        return self._poll(argument) if request == _POLL else -_EINVAL

    def _poll(self, events):
        # Where sockets have no file number, poll asks each by ioctl, which only poll can ask of a
        # native one.
        if not self._poller:
            self._poller = select.poll()
        self._poller.register(self._native, events)
        for _, ready in self._poller.ipoll(0):
            return ready
        return 0

    _poller = None


class Socket(_Stream):
    """What `socket.socket` is while the tap is in; a native socket where it is not TCP or UDP."""

    _local = (None, 0)
    _remote = None
    _way = _OUT
    _app = 0
    _looked = False  # at the first bytes
    _token = 0
    _peer = None  # UDP: the address of the last datagram that had one
    _peer_token = 0

    def __new__(cls, *args):
        sock = _native.socket(*args)
        family = args[0] if args else _native.AF_INET
        kind = args[1] & _KIND if len(args) > 1 else _native.SOCK_STREAM
        v6 = family == getattr(_native, "AF_INET6", None)
        if _tap and (v6 or family == _native.AF_INET):
            if kind in (_native.SOCK_STREAM, _native.SOCK_DGRAM):
                return _proxy(cls, sock, kind == _native.SOCK_DGRAM, v6)
        return sock

    def connect(self, address):
        try:
            address = self._tap.port.numeric(address, _getaddrinfo)
        except Exception:  # connect says what is wrong with it
            pass
        try:
            result = self._native.connect(address)
        except OSError:
            self._dialled(address)
            raise
        self._dialled(address)
        return result

    def _dialled(self, address):
        try:
            remote = self._tap.port.decode(address)
            if remote == self._remote:  # asks how a connect goes on
                return
            if self._remote:  # the wrappers hold tokens of another flow
                for name in _COUNTED:
                    if name in self.__dict__:
                        delattr(self, name)
            self._remote = remote
            self._token = 0 if self._udp else self._open(_OUT, remote)
        except Exception:
            _swallow()

    def bind(self, address):
        result = self._native.bind(address)
        try:
            host, port = self._tap.port.decode(address)
            self._local = (_known(host), port)
            if self._udp:
                self._list()
        except Exception:
            _swallow()
        return result

    def listen(self, *backlog):
        result = self._native.listen(*backlog)
        try:
            self._list()
        except Exception:
            _swallow()
        return result

    def _list(self):
        if self._tap is _tap:
            if len(_listening) == _MAX_LISTENING:
                _listening.pop(0)
            self._ends(b"")
            _listening.append((id(self), _UDP if self._udp else _TCP) + self._local)

    def accept(self):
        sock, address = accepted = self._native.accept()
        if self._tap is not _tap:
            return accepted
        peer = _proxy(Socket, sock, False, self._v6)
        try:
            peer._way = _IN
            peer._local = self._local
            peer._remote = self._tap.port.decode(address)
            peer._token = peer._open(_IN, peer._remote)
        except Exception:
            _swallow()
        return peer, address

    def sendto(self, data, address, last=None):
        if last is None:
            size = self._native.sendto(data, address)
        else:
            size = self._native.sendto(data, address, last)
            address = last
        self._datagram(_OUT, size, data, address)
        return size

    def recvfrom(self, size, flags=0):
        got = self._native.recvfrom(size, flags) if flags else self._native.recvfrom(size)
        if not flags & PEEK:
            self._datagram(_IN, len(got[0]), got[0], got[1])
        return got

    def makefile(self, *args):
        stream = self._native.makefile(*args)
        if stream is self._native:
            return self
        return _File(self, stream, not args or "b" not in args[0])

    def close(self):
        for entry in _listening:
            if entry[0] == id(self):
                _listening.remove(entry)
                break
        return self._native.close()

    def _missed_in(self, size, data):
        return self._missed(_IN, size, data)

    def _missed_out(self, size, data):
        return self._missed(_OUT, size, data)

    def _missed(self, way, size, data):
        # Counts what a wrapper's token did not: the first transfer, the first after the table was
        # drained, any of a flow that was refused. Returns the token for the next.
        if not size and not self._udp:  # the end of a stream
            return 0
        try:
            if not self._looked and not self._udp:
                self._looked = True
                app = protocols.by_use(memoryview(data)[:size], self._app)
                if app != self._app:
                    self._app = app
                    self._tap.sink.set_app(self._token, app)
            count = self._tap.ways[way][1]
            if not count(self._token, size):
                remote = self._remote or (None, 0)
                self._token = self._open(way if self._udp else self._way, remote)
                count(self._token, size)
            return self._token
        except Exception:
            _swallow()
            return 0

    def _datagram(self, way, size, data, address):
        if not self._udp:
            self._missed(way, size, data)
            return
        try:
            count = self._tap.ways[way][1]
            if address != self._peer or not count(self._peer_token, size):
                # An address may be a buffer that the application writes to again.
                self._peer = bytes(address) if isinstance(address, bytearray) else address
                self._peer_token = self._open(way, self._tap.port.decode(address))
                count(self._peer_token, size)
        except Exception:
            _swallow()

    def _open(self, way, remote):
        self._ends(remote[0])
        laddr, lport = self._local
        app = self._app or protocols.by_port(remote[1] if way else lport)
        if self._udp:
            return self._tap.sink.open(_UDP, way, laddr, lport, remote[0], remote[1], app)
        self._app = app
        return self._tap.sink.open(_TCP, way, laddr, lport, remote[0], remote[1], app)

    def _ends(self, raddr):
        # Completes the local end, as far as the platform tells: the port, and in TCP the address.
        laddr, lport = self._local
        if not lport or not (laddr or self._udp):
            end = self._tap.port.local_end(self._native, self._udp, self._v6)
            if end:
                laddr, lport = _known(end[0]), end[1]
        if not laddr and local_address:
            laddr = local_address(raddr)
        self._local = (laddr, lport)


class _File(_Stream):
    # What makefile() gives on unix: a file on the socket's descriptor.

    def __init__(self, sock, file, text):
        self._native = file
        self._tap = sock._tap
        self._missed_in = sock._missed_in
        self._missed_out = sock._missed_out
        self._text = text

    def __getattr__(self, name):
        if self._text and name in _RECEIVED:
            return _text(getattr(self._native, name), self._missed_in)
        return super().__getattr__(name)

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        return self._native.close()


def _proxy(cls, sock, udp, v6):
    proxy = object.__new__(cls)
    proxy._native = sock
    proxy._tap = _tap
    proxy._udp = udp
    proxy._v6 = v6
    return proxy


def _whole(call, missed):
    # sendall: returns nothing, and has sent all unless it raised.
    def method(buf, *flags):
        result = call(buf, *flags)
        missed(len(buf if isinstance(buf, (bytes, bytearray)) else bytes(memoryview(buf))), buf)
        return result

    return method


def _text(call, missed):
    # A text file's reads count characters.
    def method(*size):
        got = call(*size)
        if got is not None:
            missed(len(got.encode()), got)
        return got

    return method
