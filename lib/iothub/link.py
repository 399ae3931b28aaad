"""One verified TLS connection that never holds the loop.

What is written is collected in one buffer, so that a packet leaves in one piece: the pieces that
umqtt writes would each wait for the delayed ACK of the one before (Nagle, 40 ms).
"""

import errno
import gc
import os
from asyncio import core
from time import ticks_ms

import tls
from micropython import const

from . import clock
from .errors import HubError

_TX = const(1536)  # bytes collected before they are written
_MAX_DER = const(4096)  # bytes of a certificate or key
_ADDRESSES = const(4)  # of a host that are tried
_TCP = const(6)
_NODELAY = const(1)
_VERIFY_FAILED = const(-0x2700)  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED
_ENETUNREACH = const(101)  # on Linux; `errno` does not name it
_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT, _ENETUNREACH)


# asyncio has no public way to wait for a bare socket; its own Stream does it so.
def _readable(sock):
    yield core._io_queue.queue_read(sock)


def _writable(sock):
    yield core._io_queue.queue_write(sock)


def tls_context(roots, certificate=None):
    """A context that trusts `roots` only, and shows `certificate`, a pair with its key, if asked.

    All in DER form: bytes, or paths of files.
    """
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED
    for root in roots:
        try:
            context.load_verify_locations(_der(root, "certificate"))
        except ValueError:
            raise HubError("certificate", "a root is not a certificate in DER form")
    if certificate:
        try:
            context.load_cert_chain(*[_der(part, "credentials") for part in certificate])
        except ValueError:
            raise HubError("credentials", "the device's certificate or its key is not in DER form")
    return context


def _der(source, code):
    if not isinstance(source, str):
        return source
    try:
        size = os.stat(source)[6]  # a read takes as much heap as it might read
        with open(source, "rb") as file:
            return file.read(min(size, _MAX_DER))
    except OSError:
        raise HubError(code, "cannot read " + source)


def _explain(error, host):
    """The HubError for what socket or TLS raised."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else _VERIFY_FAILED
    now = clock.utc(clock.unix())
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return HubError("memory", "no memory for TLS: connect before the heap is in pieces")
    if number in _UNREACHABLE:
        return HubError("unreachable", "%s does not answer (%d)" % (host, number))
    if number == _VERIFY_FAILED:
        if "expected CN" in text:
            return HubError("host-name", "the certificate shown is not for " + host)
        if "future" in text:
            return HubError("clock-not-set", "the certificate begins later than " + now)
        if "expired" in text:
            return HubError("certificate", "the certificate had expired at " + now)
        return HubError("certificate", host + " is not vouched for by any of the given roots")
    if isinstance(number, int) and number < -255:
        return HubError("protocol", "TLS failed (-0x%x): is this a TLS port?" % -number)
    return HubError("closed", "the connection to %s broke (%s)" % (host, number))


class Link:
    """`make_socket(family, type, proto)` makes the socket."""

    def __init__(self, make_socket):
        self.host = None
        self.port = 0
        self._make_socket = make_socket
        self._addresses = None
        self._raw = None
        self._tls = None
        self._polled = None
        self._tx = bytearray(_TX)
        self._view = memoryview(self._tx)
        self.collected = 0  # bytes in the buffer that are not written yet
        self.blocked_since = None  # ticks_ms when a write began to wait for the hub

    def _resolve(self):
        # The only call that MicroPython cannot make without holding the loop: ask once, and again
        # only when no address that it gave can be reached.
        if not self._addresses:
            import socket

            try:
                found = socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM)
            except OSError:
                raise HubError("dns", "the name %s cannot be resolved" % self.host)
            self._addresses = found[:_ADDRESSES]
        return self._addresses

    async def open(self, host, port, context):
        """Connects. The TLS handshake is made with the first write."""
        if (host, port) != (self.host, self.port):
            self.host, self.port, self._addresses = host, port, None
        for address in self._resolve():
            try:
                return await self._open(address, context)
            except (OSError, MemoryError) as e:
                self.drop()
                error = _explain(e, self.host)
        self._addresses = None
        raise error

    async def _open(self, address, context):
        gc.collect()  # TLS asks for 16 KB in one piece
        raw = self._raw = self._make_socket(address[0], address[1], address[2])
        raw.setblocking(False)
        try:
            raw.setsockopt(_TCP, _NODELAY, 1)
        except OSError:
            pass  # not every port has it
        try:
            raw.connect(address[-1])
        except OSError as e:
            if e.errno != errno.EINPROGRESS:
                raise
        await _writable(raw)
        raw.send(b"")  # raises when it was refused: there is no other way to ask
        self._tls = context.wrap_socket(
            raw, server_hostname=self.host, do_handshake_on_connect=False
        )
        # While it shakes hands TLS knows which direction it waits for; afterwards the bare socket
        # is asked, which a port can wait for in the kernel.
        self._polled = self._tls

    def drop(self):
        """Closes at once; what was collected is lost."""
        raw, secure = self._raw, self._tls
        self._raw = self._tls = self._polled = self.blocked_since = None
        self.collected = 0
        if secure:
            secure.close()
        if raw:
            raw.close()

    def close(self):
        """Closes after one attempt to write what was collected."""
        if self._raw and self.collected:
            try:
                self.push()
            except HubError:
                pass
        self.drop()

    def read(self, buffer):
        """Fills `buffer` with what has come: the number of bytes, or None when there is none."""
        if self._tls is None:
            raise self._closed()
        try:
            n = self._tls.readinto(buffer)
        except (OSError, ValueError) as e:
            raise _explain(e, self.host)
        if n == 0:
            raise self._closed()
        return n

    def _closed(self):
        return HubError("closed", "the connection to %s was closed" % self.host)

    def readable(self):
        return _readable(self._raw)

    def write(self, data, size=None):
        """Collects `data` (or its first `size` bytes); the name is the one that umqtt calls."""
        at = self.collected
        end = at + (len(data) if size is None else size)
        if end > _TX:
            raise HubError("too-large", "topic and properties are over %d bytes" % _TX)
        self._tx[at:end] = data if size is None else data[:size]
        self.collected = end

    async def put(self, data):
        """Collects `data` of any length, writing whenever the buffer is full."""
        at, end = 0, len(data)
        if self.collected + end <= _TX:
            self.write(data)
            return
        data = memoryview(data)
        while at < end:
            if self.collected == _TX:
                await self.flush()
                await core.sleep_ms(0)  # a long message must not hold the loop
            size = min(end - at, _TX - self.collected)
            self.write(data[at : at + size])
            at += size

    def push(self):
        """Writes what was collected if that can be done at once: whether it was.

        When it was not, nothing may be collected before `flush`: TLS wants the same bytes again.
        """
        if self._tls is None:
            raise self._closed()
        try:
            sent = self._tls.write(self._view[: self.collected])
        except (OSError, ValueError) as e:
            raise _explain(e, self.host)
        if sent is None:
            return False
        self.collected = 0  # the buffer is smaller than a TLS record: all of it or nothing
        self._polled = self._raw
        return True

    async def flush(self):
        """Writes what was collected."""
        secure = self._tls
        while not self.push():
            self.blocked_since = self.blocked_since or ticks_ms()
            await _writable(self._polled)
            if self._tls is not secure:
                raise self._closed()
        self.blocked_since = None
