"""One verified TLS connection that never holds the loop.

What is written is collected in one buffer, so that a packet leaves in one piece: pieces
would each wait for the delayed ACK of the one before (Nagle, 40 ms).
"""

from asyncio import core
from time import ticks_ms

from micropython import const

from .errors import HubError, cold

_TX = const(1024)  # bytes collected before they are written
_PAUSE_MS = const(5)  # between attempts to write


class Link:
    """A TLS stream on a socket: connecting.py opens it."""

    def __init__(self):
        self.where = self.addresses = None  # host and port, and where that was found
        self.attempts = 0  # to open it: each begins with another of several addresses
        self.sock = None
        self.tls = None
        self.collected = 0  # bytes in the buffer that are not written yet
        self.since = None  # ticks_ms when a write began to wait for the hub
        self._tx = memoryview(bytearray(_TX))

    def close(self):
        """Closes at once; what was collected is lost."""
        tls, sock = self.tls, self.sock
        self.tls = self.sock = self.since = None
        self.collected = 0
        if tls:
            tls.close()
        if sock:
            sock.close()

    def read(self, buffer):
        """Fills `buffer` with what has come: the number of bytes, or None when there is none."""
        size = 0
        try:
            if self.tls:
                size = self.tls.readinto(buffer)
        except (OSError, ValueError) as e:
            raise cold("reasons", "of", e, self.where[0])
        if size == 0:
            raise HubError("closed")
        return size

    def ready(self, write=False):
        """Awaited until there may be something to read, or until the socket is connected."""
        # asyncio has no public way to wait for a bare socket; its own Stream does it so.
        queue = core._io_queue
        yield queue.queue_write(self.sock) if write else queue.queue_read(self.sock)

    def write(self, data):
        """Collects `data`, which has to fit; the name is the one that umqtt calls."""
        end = self.collected + len(data)
        self._tx[self.collected : end] = data
        self.collected = end

    async def put(self, data):
        """Collects `data` of any length, writing whenever the buffer is full."""
        data = memoryview(data)
        while len(data):
            if self.collected == _TX:
                await self.flush()
                await core.sleep_ms(0)  # a long message must not hold the loop
            size = min(len(data), _TX - self.collected)
            self.write(data[:size])
            data = data[size:]

    def push(self):
        """Writes what was collected if that can be done at once: whether it was.

        When it was not, nothing may be collected before `flush`: TLS wants the same bytes again.
        """
        if not self.tls:
            raise HubError("closed")
        try:
            # The buffer is smaller than a TLS record: all of it is written, or nothing.
            if self.tls.write(self._tx[: self.collected]) is None:
                return False
        except (OSError, ValueError) as e:
            raise cold("reasons", "of", e, self.where[0])
        self.collected = 0
        return True

    async def flush(self):
        """Writes what was collected."""
        tls = self.tls
        while not self.push():
            self.since = self.since or ticks_ms()
            # Not `ready`: with a reader that is cancelled asyncio forgets who writes the same
            # socket, and that would wait for ever.
            await core.sleep_ms(_PAUSE_MS)
            if self.tls is not tls:
                raise HubError("closed")
        self.since = None
