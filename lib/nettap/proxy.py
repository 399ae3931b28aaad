"""Sockets with the stream protocol that stand in for native ones and tell the tap what they do.

poll, asyncio and TLS take them like native sockets. What is not defined here is the native
socket's, by delegation.
"""

import io
import select
import socket as _native
import time
from errno import EINPROGRESS

from micropython import const

from nettap import protocols
from nettap.counting import PEEK

_TCP = const(6)
_UDP = const(17)
_IN = const(0)
_OUT = const(1)
_TYPE = const(15)  # Linux keeps flags above a socket's type
_LOOKED = const(32)  # above an application code: the first bytes were looked at
_EINVAL = const(22)
_RETRY_MS = const(1000)  # a refused flow may find room in the sink's next cycle
# Requests of the stream protocol, py/stream.h.
_POLL = const(3)
_CLOSE = const(4)
_GET_FILENO = const(10)

_INET = _native.AF_INET
_INET6 = getattr(_native, "AF_INET6", None)
_STREAM = _native.SOCK_STREAM
_DGRAM = _native.SOCK_DGRAM

# The methods that move bytes: IN and OUT return the size, _RESULT the bytes received.
_RESULT = const(2)
_WAYS = {
    "send": _OUT,
    "write": _OUT,
    "readinto": _IN,
    "recv_into": _IN,
    "recv": _RESULT,
    "read": _RESULT,
    "readline": _RESULT,
}


def known(address):
    """The address, or None where it is all zeros: any interface."""
    return address if any(address) else None


class _Proxy(io.IOBase):
    # A native stream behind the stream protocol.

    _app = 0
    _poller = None

    def __getattr__(self, name):
        # The native stream's. What moves bytes is wrapped, at its first use.
        method = getattr(self._native, name)
        way = _WAYS.get(name)
        if way is None:
            return _whole(method, self._missed_out) if name == "sendall" else method
        missed = self._missed_out if way == _OUT else self._missed_in
        method = self._tap.wrap[way](method, missed, self._token if self._app & _LOOKED else 0)
        setattr(self, name, method)
        return method

    def __repr__(self):
        return repr(self._native)

    def ioctl(self, request, argument):
        if request == _GET_FILENO:
            try:
                return self._native.fileno()
            except AttributeError:
                return -_EINVAL
        if request == _POLL:
            return self._poll(argument)
        if request == _CLOSE:
            self.close()
            return 0
        return -_EINVAL

    def _poll(self, events):
        # Where sockets have no file number, poll asks each one by ioctl; of a native socket only
        # another poll can ask it.
        if not self._poller:
            self._poller = select.poll()
        self._poller.register(self._native, events)
        for _, ready in self._poller.ipoll(0):
            return ready
        return 0


class Socket(_Proxy):
    """`socket.socket` while the tap is in. Makes a native socket where it is not TCP or UDP."""

    _tap = None  # the tap that is in; an instance keeps the one it was made under
    _udp = False
    _v6 = False
    _local = (None, 0)
    _remote = None
    _way = _OUT
    _token = 0  # of what it is connected to
    _peer = None  # UDP: the address of the last datagram that had one
    _peer_token = 0
    _refused_ms = 0
    _held = None  # bytes in and out, while the local end is looked up

    def __new__(cls, family=_INET, kind=_STREAM, *rest):
        sock = _native.socket(family, kind, *rest)
        if cls._tap and (family == _INET or family == _INET6):
            if kind & _TYPE == _STREAM or kind & _TYPE == _DGRAM:
                return _proxy(cls, sock, kind & _TYPE == _DGRAM, family == _INET6)
        return sock

    def connect(self, address):
        try:
            address = self._tap.port.numeric(address, self._tap.getaddrinfo)
        except Exception:  # connect itself says what is wrong with it
            pass
        try:
            result = self._native.connect(address)
        except OSError as error:
            self._dialled(address, error.errno == EINPROGRESS)
            raise
        self._dialled(address, True)
        return result

    def _dialled(self, address, open):
        try:
            remote = self._tap.port.decode(address)
            if remote == self._remote:  # asks how a connect goes on
                return
            if self._remote:  # the wrappers have a token of another flow
                for name in _WAYS:
                    if name in self.__dict__:
                        delattr(self, name)
            self._remote = remote
            self._token = 0
            if open and not self._udp:
                self._begin()
            elif not self._udp:
                self._token = self._open(_OUT, remote)
        except Exception:
            self._tap.swallow()

    def bind(self, address):
        result = self._native.bind(address)
        try:
            host, port = self._tap.port.decode(address)
            self._local = (known(host), port)
            if self._udp:
                self._list()
        except Exception:
            self._tap.swallow()
        return result

    def listen(self, *backlog):
        result = self._native.listen(*backlog)
        try:
            self._list()
        except Exception:
            self._tap.swallow()
        return result

    def _list(self):
        self._complete(b"")
        self._tap.list(id(self), _UDP if self._udp else _TCP, self._local)

    def accept(self):
        sock, address = accepted = self._native.accept()
        if self._tap is not Socket._tap:
            return accepted
        peer = _proxy(Socket, sock, False, self._v6)
        try:
            peer._way = _IN
            peer._local = self._local
            peer._remote = self._tap.port.decode(address)
            peer._begin()
        except Exception:
            self._tap.swallow()
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
        return self if stream is self._native else _File(self, stream)

    def close(self):
        self._tap.closing(self)
        return self._native.close()

    def _missed_in(self, size, data):
        if self._held and self._app & _LOOKED:
            self._held[_IN] += size
            return 0
        return self._missed(_IN, size, data)

    def _missed_out(self, size, data):
        if self._held and self._app & _LOOKED:
            self._held[_OUT] += size
            return 0
        return self._missed(_OUT, size, data)

    def _missed(self, way, size, data):
        # Counts what no token stood for: the first transfer, the first after the table was
        # drained, any of a flow that was refused or is held back. Returns the token for the next.
        if not size and not self._udp:  # the end of a stream
            return 0
        try:
            if not self._app & _LOOKED and not self._udp:
                app = protocols.by_use(data, size, self._app)
                if app != self._app:
                    self._tap.sink.set_app(self._token, app)
                self._app = app | _LOOKED
            if self._token < 0 and not self._udp:  # a refused connection is one sighting, not many
                if time.ticks_diff(time.ticks_ms(), self._refused_ms) < _RETRY_MS:
                    return 0
            count = self._tap.count[way]
            if not self._held and not count(self._token, size):
                if self._udp:
                    self._token = self._open(way, self._remote or (None, 0))
                else:
                    self._begin()
                if not self._held:
                    count(self._token, size)
            if self._held:
                self._held[way] += size
                return 0
            return self._token
        except Exception:
            self._tap.swallow()
            return 0

    def _datagram(self, way, size, data, address):
        if not self._udp:
            self._missed(way, size, data)
            return
        try:
            count = self._tap.count[way]
            if address != self._peer or not count(self._peer_token, size):
                # An address may be a buffer that the application writes to again.
                self._peer = bytes(address) if isinstance(address, bytearray) else address
                self._peer_token = self._open(way, self._tap.port.decode(address))
                count(self._peer_token, size)
        except Exception:
            self._tap.swallow()

    def _begin(self):
        # Opens the TCP flow, or holds it back until its local end is looked up.
        if self._complete(self._remote[0]):
            self._token = self._open(self._way, self._remote)
        else:
            self._held = [0, 0]
            self._tap.hold(self)

    def settle(self, end):
        """Open the flow that was held back, with its local end or None, and count its bytes."""
        held, self._held = self._held, None
        if end:
            self._local = (known(end[0]), end[1])
        self._token = self._open(self._way, self._remote)
        for way in (_IN, _OUT):
            if held[way]:
                self._tap.count[way](self._token, held[way])

    def _open(self, way, remote):
        app = self._app & ~_LOOKED or protocols.by_port(remote[1] if way else self._local[1])
        if self._udp:
            self._complete(remote[0])
        else:
            self._app |= app
        laddr, lport = self._local
        kind = _UDP if self._udp else _TCP
        token = self._tap.sink.open(kind, way, laddr, lport, remote[0], remote[1], app)
        if token < 0:
            self._refused_ms = time.ticks_ms()
        return token

    def _complete(self, raddr):
        # Completes the local end: the port, and in TCP the address. False: to be looked up later.
        laddr, lport = self._local
        end = None
        if not lport or not (laddr or self._udp):
            end = self._tap.port.local_end(self._native, self._udp, self._v6)
            if end:
                laddr, lport = known(end[0]), end[1]
        self._local = (laddr or self._tap.local_address(raddr), lport)
        return end is not False


class _File(_Proxy):
    # What makefile() gives on unix: a file on the socket's descriptor.

    def __init__(self, sock, file):
        self._native = file
        self._tap = sock._tap
        self._missed_in = sock._missed_in
        self._missed_out = sock._missed_out

    def read(self, size=-1):
        return self._got(self._native.read(size))

    def readline(self, size=-1):
        return self._got(self._native.readline(size))

    def _got(self, data):
        if data is not None:  # a text file's length is in characters
            self._missed_in(len(data.encode() if isinstance(data, str) else data), data)
        return data

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readlines(self):
        return list(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        return self._native.close()


def _proxy(cls, sock, udp, v6):
    proxy = object.__new__(cls)
    proxy._native = sock
    proxy._tap = Socket._tap
    if udp:
        proxy._udp = True
    if v6:
        proxy._v6 = True
    return proxy


def _whole(call, missed):
    # sendall: returns nothing, and has sent all unless it raised.
    def method(buf, *flags):
        result = call(buf, *flags)
        missed(len(buf if isinstance(buf, (bytes, bytearray)) else bytes(memoryview(buf))), buf)
        return result

    return method
