"""The tap in the socket layer: sees connections and counts their bytes, for a sink.

`install(sink)` puts a replacement of the module `socket` (and `usocket`) in place; do it before
anything that imports it at its top. An application's sockets are then proxies with the stream
protocol, which poll, asyncio and TLS take like native ones. It is visibility, not enforcement:
code that keeps the native module passes by. Sockets that are not TCP, UDP or ICMP over IP are
native.

A sink has open(protocol, direction, laddr, lport, raddr, rport, app) -> token > 0, < 0 if refused,
count_in(token, size) and count_out(token, size) -> 1, or 0 for a token that is stale, and
set_app(token, app), as `flowtable.FlowTable`. The two that count must not raise: they are called
unguarded. Errors of the others are swallowed and counted in `errors`.

docs/nettap.md says what is seen, and where a proxy differs from a native socket.
"""

import io
import select
import socket as _native
import sys
import time
from errno import ECONNREFUSED

import micropython
from micropython import const

from nettap import front, protocols

if hasattr(_native, "sockaddr"):
    from nettap import linux as _port
else:
    from nettap import board as _port

_TCP = const(6)
_UDP = const(17)
_ICMP = const(1)
_ICMP6 = const(58)
_IN = const(0)
_OUT = const(1)
_TYPE = const(15)  # Linux keeps flags above a socket's type
_LOOKED = const(32)  # above an application code: the first bytes were looked at
_EINVAL = const(22)
_RETRY_MS = const(1000)  # a refused flow may find room in the sink's next cycle
_MAX_LISTENING = const(16)
_MAX_NAMES = const(32)
_MAX_NAME = const(64)
# Requests of the stream protocol, py/stream.h.
_POLL = const(3)
_CLOSE = const(4)
_GET_FILENO = const(10)
# What an install() has made: by IN and OUT, what counts and the wrapper of what returns a size;
_SIZED = const(2)
_DATA = const(4)  # the wrapper of what returns received bytes;
_SINK = const(5)
_STOP = const(6)  # and what ends the counting.

# What `Socket.__getattr__` keeps in a socket.
_WRAPPED = const("send write readinto recv_into recv read readline")

_PEEK = getattr(_native, "MSG_PEEK", 0)

include_own = False  # whether own_socket() is reported as well
include_icmp = True  # whether sockets for ICMP are: not where someone else sees all of it
local_address = None  # a function of the remote address that gives the interface's, as bytes
errors = 0  # swallowed inside the tap

app_name = protocols.app_name

_replaced = {}  # modules
_listening = []  # (id of the socket, protocol, (address, port))
_addresses = []  # that an application resolved,
_names = []  # from these


def _quietly(call, *args):
    # The application is not to feel what goes wrong in the tap.
    global errors
    try:
        return call(*args)
    except Exception:
        errors += 1


# The hot path: wrappers around a socket's native methods that count what each call moved. They are
# closures kept in the socket's own attributes, and native code: a method that looks its state up
# in attributes costs twice as much (docs/nettap.md has the figures). A closure has four cells at
# most, as MicroPython calls one with more than five values, arguments included, through the heap.
# They name nothing global: native code that does sets up an exception handler (py/emitnative.c).


def _uncounted(token, size):
    return 1


def _counting(count):
    # Returns (stop, sized, data), which count by `count`. stop() ends it, in all wrappers; sized
    # and data wrap a socket's method.

    def stop():
        nonlocal count
        count = _uncounted

    def sized(call, sock):
        token = 0

        @micropython.native
        def method(buf, a=None, b=None):
            nonlocal token
            size = call(buf) if a is None else call(buf, a) if b is None else call(buf, a, b)
            if not (size and count(token, size)):
                token = sock._missed(count, size, buf)
            return size

        return method

    def data(call, sock):
        token = 0

        @micropython.native
        def method(size=-1, flags=0, length=len):
            nonlocal token
            if flags:
                return sock._flagged(call, size, flags)
            got = call(size)
            if not (got and count(token, length(got))):
                token = sock._missed(count, None if got is None else length(got), got)
            return got

        return method

    return stop, sized, data


class Socket(io.IOBase):
    """`socket.socket` while the tap is in. Makes a native socket of another protocol.

    What is not defined here is the native socket's, by delegation.
    """

    _tap = None  # the tap that is in; an instance keeps the one it was made under
    _udp = False  # datagrams: UDP, or ICMP
    _icmp = False
    _way = _OUT
    _app = 0
    _local = (None, 0)
    _remote = None  # the address that it is connected to,
    _token = 0  # and the flow
    _peer = None  # UDP: the address of the last datagram that had one,
    _peer_token = 0  # and the flow
    _refused_ms = 0
    _poller = None

    def __new__(cls, family=_native.AF_INET, kind=_native.SOCK_STREAM, *rest):
        sock = _native.socket(family, kind, *rest)
        if cls._tap and (family == _native.AF_INET or family == getattr(_native, "AF_INET6", -1)):
            kind &= _TYPE
            if rest and (rest[0] == _ICMP or rest[0] == _ICMP6):
                if include_icmp:
                    sock = _proxy(cls, sock, True)
                    sock._icmp = True
            elif kind == _native.SOCK_STREAM or kind == _native.SOCK_DGRAM:
                return _proxy(cls, sock, kind == _native.SOCK_DGRAM)
        return sock

    def __getattr__(self, name):
        # The native socket's. What moves bytes is wrapped, at its first use.
        method = getattr(self._native, name)
        tap = self._tap
        if tap is not Socket._tap:
            return method
        if name == "send" or name == "write":
            method = tap[_SIZED + _OUT](method, self)
        elif name == "readinto" or name == "recv_into":
            method = tap[_SIZED + _IN](method, self)
        elif name == "recv" or name == "read" or name == "readline":
            method = tap[_DATA](method, self)
        elif name == "sendall":
            return _whole(method, self)
        else:
            return method
        setattr(self, name, method)
        return method

    def __repr__(self):
        return repr(self._native)

    def ioctl(self, request, argument):
        if request == _GET_FILENO:
            # A poll asks when a socket is registered: asyncio does that for each single wait.
            try:
                number = self._native.fileno()
                self.ioctl = _port.numbered(number, self)
                return number
            except AttributeError:  # no file numbers here
                return -_EINVAL
        if request == _POLL:
            # Where sockets have no file number, poll asks each one by ioctl; of a native socket
            # only another poll can ask it.
            if not self._poller:
                self._poller = select.poll()
            self._poller.register(self._native, argument)
            for _, ready in self._poller.ipoll(0):
                return ready
            return 0
        if request == _CLOSE:
            self.close()
            return 0
        return -_EINVAL

    def connect(self, address):
        error, address, lport = _port.connect(self._native, address, self._udp)
        _quietly(self._dialled, address, lport, not error or error.errno != ECONNREFUSED)
        if error:
            raise error

    def _dialled(self, address, lport, begun):
        before = self._remote
        self._remote = begun and address  # after a refusal, the next one is another try
        if address == before:  # asks how a connect goes on
            return
        if before:  # the wrappers have a token of another flow
            for name in _WRAPPED.split():
                if name in self.__dict__:
                    delattr(self, name)
        self._token = 0
        if not self._udp:
            self._token = self._open(_OUT, address, lport, begun)

    def bind(self, address):
        result = self._native.bind(address)
        _quietly(self._bound, address)
        return result

    def _bound(self, address):
        host, port = _port.decode(address)
        self._local = host if any(host) else None, port
        if self._udp and not self._icmp:
            self._list()

    def listen(self, *backlog):
        result = self._native.listen(*backlog)
        _quietly(self._list)
        return result

    def _list(self):
        self._local = _port.local_end(self._native, self._udp, self._local, None)
        if len(_listening) == _MAX_LISTENING:
            _listening.pop(0)
        _listening.append((id(self), _UDP if self._udp else _TCP, self._local))

    def accept(self):
        sock, address = accepted = self._native.accept()
        if self._tap is not Socket._tap:
            return accepted
        peer = _proxy(Socket, sock, False)
        peer._way = _IN
        peer._local = self._local
        peer._remote = address
        peer._token = _quietly(peer._open, _IN, address) or 0
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
        if not flags & _PEEK:
            self._datagram(_IN, len(got[0]), got[0], got[1])
        return got

    def makefile(self, *args):
        stream = self._native.makefile(*args)
        if stream is self._native:
            return self
        from nettap.file import File  # a board does not need it

        return File(self, stream)

    def close(self):
        if "ioctl" in self.__dict__:
            del self.ioctl
        for entry in _listening:
            if entry[0] == id(self):
                _listening.remove(entry)
                break
        return self._native.close()

    def _flagged(self, call, size, flags):
        got = call(size, flags)
        if not flags & _PEEK:  # bytes that stay where they are are counted when they are taken
            self._missed(self._tap[_IN], len(got), got)
        return got

    def _missed(self, count, size, data):
        # Counts what no token stood for: the first transfer, the first after the sink was drained,
        # any of a flow that was refused. Returns the token for the next.
        global errors
        if not size and (size is None or not self._udp):  # would block, or the end of a stream
            return self._token if self._app & _LOOKED else 0
        if self._icmp:
            self._message(_IN if count is self._tap[_IN] else _OUT, size, data, self._remote)
            return 0
        if not self._udp:
            if self._token < 0 and time.ticks_diff(time.ticks_ms(), self._refused_ms) < _RETRY_MS:
                return 0  # a refused connection is one sighting, not many
        try:
            tap = self._tap
            if not self._app & _LOOKED and not self._udp:
                app = protocols.by_use(data, size, self._app)
                if app != self._app:
                    tap[_SINK].set_app(self._token, app)
                self._app = app | _LOOKED
            if not count(self._token, size):
                way = self._way
                if self._udp:
                    way = _IN if count is tap[_IN] else _OUT
                self._token = self._open(way, self._remote)
                count(self._token, size)
            return self._token
        except Exception:
            errors += 1
            return 0

    def _datagram(self, way, size, data, address):
        global errors
        tap = self._tap
        if self._icmp:
            self._message(way, size, data, address)
        elif not self._udp:
            self._missed(tap[way], size, data)
        elif address != self._peer or not tap[way](self._peer_token, size):
            try:
                if tap is Socket._tap:
                    # An address may be a buffer that the application writes to again.
                    self._peer = bytes(address) if isinstance(address, bytearray) else address
                    self._peer_token = self._open(way, address)
                    tap[way](self._peer_token, size)
            except Exception:
                errors += 1

    def _message(self, way, size, data, address):
        # Each ICMP message is a sighting of its flow. A raw socket gets IPv4's header with it.
        global errors
        tap = self._tap
        try:
            if way == _IN and data[0] >> 4 == 4:
                size -= (data[0] & 15) * 4
            if tap is Socket._tap:
                tap[way](self._open(way, address), size)
        except Exception:
            errors += 1

    def _open(self, way, address, lport=0, begun=True):
        # Opens the flow with an address, its own end completed as far as the platform tells it;
        # returns the token. `lport` is what the port is expected to be.
        raddr, rport = _port.decode(address) if address else (None, 0)
        local = self._local
        if begun and not (local[0] and local[1]):
            local = _port.local_end(
                self._native, self._udp, (local[0], local[1] or lport), address
            )
            # The interface that a datagram leaves by depends on where it goes.
            self._local = (self._local[0], local[1]) if self._udp else local
        laddr = local[0] or (local_address(raddr) if local_address else None)
        app = self._app & ~_LOOKED or protocols.by_port(rport if way else local[1])
        if not self._udp:
            self._app |= app
        protocol = _UDP if self._udp else _TCP
        if self._icmp:  # which has no ports: what stands there is the protocol, or anything
            protocol, app, local, rport = _ICMP, 0, (laddr, 0), 0
        token = self._tap[_SINK].open(protocol, way, laddr, local[1], raddr, rport, app)
        if token < 0:
            self._refused_ms = time.ticks_ms()
        return token


def _proxy(cls, sock, udp):
    proxy = object.__new__(cls)
    proxy._native = sock
    proxy._tap = Socket._tap
    if udp:
        proxy._udp = True
    return proxy


def _whole(call, sock):
    # sendall: returns nothing, and has sent all unless it raised.
    def method(buf, *flags):
        call(buf, *flags)
        plain = buf if isinstance(buf, (bytes, bytearray)) else bytes(memoryview(buf))
        sock._missed(sock._tap[_OUT], len(plain), plain)

    return method


def _getaddrinfo(host, *rest):
    found = _native.getaddrinfo(host, *rest)
    _quietly(_remember, host, found)
    return found


def _remember(host, found):
    # The name for each address that was found, unless it is an address itself, or a wildcard: no
    # top-level domain ends in a digit.
    if not host or ":" in host or host[-1].isdigit():
        return
    for entry in found:
        address = _port.decode(entry[-1])[0]
        if address in _addresses:
            at = _addresses.index(address)
            _addresses.pop(at)
            _names.pop(at)
        elif len(_names) == _MAX_NAMES:
            _addresses.pop(0)
            _names.pop(0)
        _addresses.append(address)
        _names.append(host[:_MAX_NAME])


def host_name(address):
    """The name that was last resolved to an address (4 or 16 bytes), None if none was.

    The last 32 are kept, 64 characters each.
    """
    return _names[_addresses.index(address)] if address in _addresses else None


def install(sink):
    """Put the tap in. Errors: RuntimeError when it is in already."""
    if Socket._tap:
        raise RuntimeError("the tap is in already: call uninstall() first")
    count_in, count_out = sink.count_in, sink.count_out
    stop_in, sized_in, data = _counting(count_in)
    stop_out, sized_out, _ = _counting(count_out)
    Socket._tap = [count_in, count_out, sized_in, sized_out, data, sink, stop_in, stop_out]
    for name in dir(_native):
        if not name.startswith("__"):
            setattr(front, name, getattr(_native, name))
    front.__name__ = "socket"
    front.socket = Socket
    front.getaddrinfo = _getaddrinfo
    for name in ("socket", "usocket"):
        _replaced[name] = sys.modules.get(name)
        sys.modules[name] = front


def uninstall():
    """Take the tap out. Proxies that are open go on working, uncounted, for good."""
    tap = Socket._tap
    if not tap:
        return
    Socket._tap = None
    for stop in tap[_STOP:]:
        stop()
    tap[_IN] = tap[_OUT] = _uncounted
    for name, module in _replaced.items():
        if module:
            sys.modules[name] = module
        else:
            del sys.modules[name]
    _listening.clear()
    _addresses.clear()
    _names.clear()


def own_socket(*args):
    """A socket of the agent's own: native, so not reported, unless `include_own`."""
    return Socket(*args) if include_own else _native.socket(*args)


def listening():
    """The sockets that listen, or are bound in UDP, now: a list of (protocol, address, port).

    The address is None for all interfaces. The last 16 are kept.
    """
    return [(entry[1],) + entry[2] for entry in _listening]
