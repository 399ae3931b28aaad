"""MQTT 3.1.1 on asyncio, over umqtt.simple: what that lacks for a client that must not wait.

Several messages of QoS 1 are in flight, packet ids wrap, what arrives is read into one buffer
without blocking, and nothing is waited for without a limit.
Source: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html
"""

import asyncio
from time import ticks_add, ticks_diff, ticks_ms

from micropython import const
from umqtt.simple import MQTTClient

from . import clock
from .errors import HubError, cold
from .link import Link

CONNECT = const(0x10)  # the first byte of packets that are written
PUBLISH = const(0x30)
_PUBLISH_QOS1 = const(0x32)
_DUP = const(0x08)
_CONNACK = const(2)  # the kinds of packets that are read
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBACK = const(9)
_PINGRESP = const(13)

_RX = const(256)  # bytes read at once; a longer message is read into a buffer of its own
_WINDOW = const(8)  # messages in flight
_TICK_MS = const(500)
_PAUSE_MS = const(10)
_CONNECT_S = const(30)  # from the look-up of the name to the hub's acceptance
_STALL_MS = const(20000)  # without progress in writing
_PONG_MS = const(20000)  # for the answer to a ping, or half of the keep-alive time
_MAX_KEEPALIVE = const(1177)  # the hub cuts at 1.5 times, and at 1767 s in any case
_MAX_JUMP_S = const(30)  # that the wall clock may move against the uptime under a token


def due(seconds):
    """`ticks_ms` in so many seconds."""
    return ticks_add(ticks_ms(), int(seconds * 1000))


async def wait_until(event, limit):
    """Waits for an asyncio.Event; HubError "timeout" at `limit` (`ticks_ms`)."""
    if not event.is_set():
        try:
            await asyncio.wait_for_ms(event.wait(), max(0, ticks_diff(limit, ticks_ms())))
        except asyncio.TimeoutError:
            raise HubError("timeout", "not connected")


class Session(MQTTClient):
    """MQTT sessions with a hub, one at a time. The options are those of HubClient.

    `on_tick(new)` is called when the hub has accepted the client, and about twice a second from
    then on; `on_message(topic, payload, packet_id)` for each message: payload is a memoryview that
    is valid only during the call, or None when the packet was over `max_message` bytes; packet_id
    is 0 for QoS 0. `stats` are HubClient's.
    """

    def __init__(
        self,
        on_tick,
        on_message,
        stats,
        socket=None,
        keepalive=240,
        clean_session=False,
        model_id=None,
        max_message=8192,
        token_lifetime=3600,
    ):
        # umqtt's constructor is left out: what it keeps is for a connect() that would block.
        self.sock = Link()
        self.pid = 0
        self.keepalive = min(keepalive, _MAX_KEEPALIVE)
        self.socket = socket
        self.clean_session = clean_session
        self.model_id = model_id
        self.token_lifetime = token_lifetime
        self.alive = False  # from CONNACK until the connection ends
        self.up = asyncio.Event()  # set by the owner while messages of QoS 1 may be sent
        self.prefix = ""  # of their topics; it may be another after a reconnect
        self.renew = False  # the connection is to be replaced
        self.fault = None  # the exception that ends the connection
        self.since = None  # uptime when the hub accepted the client
        self.replies = {}  # what is awaited, by number
        self.stats = stats
        self.on_tick = on_tick
        self.on_message = on_message
        self.max_message = max_message
        self._sending = asyncio.Lock()  # held while a packet is written
        self._left = 0  # bytes that the writer of a message has yet to write
        self._window = _WINDOW
        self._room = asyncio.Event()
        self._rx = memoryview(bytearray(_RX))
        self._spoke = 0  # ticks_ms of the last packet that was written
        self._pinged = None  # and of a ping since which nothing was heard

    # --- one connection ---

    async def run(self, identity, roots):
        """Keeps one connection as `identity`: returns when it is to be replaced, or HubError."""
        if not clock.is_set():
            raise HubError("clock-not-set", "it says " + clock.utc(clock.unix()))
        self.fault = self.since = self._pinged = None
        self.renew = False
        begun = clock.uptime()
        offset = clock.unix() - begun
        over = None
        talk = asyncio.create_task(self._talk(identity, roots))
        try:
            while True:
                await asyncio.sleep_ms(_TICK_MS)
                self.check()
                now = clock.uptime()
                if self.fault:
                    raise self.fault
                if not self.alive:
                    if self.since is not None:
                        raise HubError("closed")
                    if now - begun > _CONNECT_S:
                        raise HubError("timeout", "not accepted")
                elif (
                    self.renew
                    or (now - begun) * 4 >= self.token_lifetime * 3
                    or abs(clock.unix() - now - offset) > _MAX_JUMP_S
                ):
                    # Nothing new is sent, and what was sent is answered, before it is replaced.
                    self.up.clear()
                    limit = due(self.token_lifetime / 20)
                    while (self.replies or self._sending.locked()) and not self.fault:
                        if ticks_diff(limit, ticks_ms()) < 0:
                            break
                        self.check()
                        await asyncio.sleep_ms(_PAUSE_MS)
                    return
                else:
                    self.on_tick(False)
        except asyncio.CancelledError:
            over = HubError("stopped")
            raise
        finally:
            talk.cancel()
            self.end(over)
            if self.since is None:  # the hub may have moved, and another have its address
                self.sock.addresses = None

    async def _talk(self, identity, roots):
        try:
            await cold("connecting", "connect", self, identity, roots)
            await self.read()
        except Exception as e:
            self.fault = e

    def end(self, error=None):
        """Closes the connection; whoever waits for an answer is told `error`, else "closed"."""
        link = self.sock
        try:
            if self.alive and not self._sending.locked() and not link.collected:
                link.write(b"\xe0\0")  # DISCONNECT
                link.push()
        except HubError:
            pass
        finally:
            self.alive = False
            self.up.clear()
            link.close()
            for number in self.replies:
                self.give(number, error or HubError("closed"))

    def check(self):
        """What is due: called about twice a second. HubError when the hub is silent."""
        now = ticks_ms()
        link = self.sock
        late = False
        for number, reply in self.replies.items():
            if ticks_diff(now, reply.limit) > 0:
                late = True
                self.give(number, HubError("timeout"))
        if link.since is not None and ticks_diff(now, link.since) > _STALL_MS:
            raise HubError("timeout", "the hub does not read")
        if self._pinged is not None:
            if ticks_diff(now, self._pinged) > min(self.keepalive * 500, _PONG_MS):
                raise HubError("timeout", "the hub is silent")
        elif self.alive and not self._sending.locked():
            quiet = ticks_diff(now, self._spoke)
            if not link.collected and (late or quiet > self.keepalive * 750):
                self._pinged = self._spoke = now
                self.ping()
            if link.collected:
                link.push()

    # --- writing ---

    async def write(self, first, parts, length=0, content=b""):
        """Writes a packet: `parts` (a str has its length before it), then `length` bytes, which
        are `content`, or what that writes when it is called with a coroutine function to do so.

        False, and nothing is written, when there is no session for it.
        """
        link = self.sock
        async with self._sending:
            if not self.alive and first != CONNECT:
                return False
            whole = False
            try:
                if link.collected:
                    await link.flush()
                size = length
                for part in parts:
                    size += len(part) + 2 if isinstance(part, str) else len(part)
                header = bytearray((first,))
                while size > 127:
                    header.append(size & 127 | 128)
                    size >>= 7
                header.append(size)
                link.write(header)
                for part in parts:
                    if isinstance(part, str):
                        part = part.encode()
                        part = len(part).to_bytes(2, "big") + part
                    await link.put(part)
                if not callable(content):
                    await link.put(content)
                else:
                    self._left = length
                    try:
                        await content(self._put)
                    except HubError:
                        raise
                    except Exception as e:
                        raise HubError("writer", type(e).__name__)
                    if self._left:
                        raise HubError("writer", "%d bytes are missing" % self._left)
                await link.flush()
                self._spoke = ticks_ms()
                whole = True
            finally:
                if not whole:  # nothing can follow half a packet
                    self.end()
            return True

    async def _put(self, data):
        self._left -= len(data)
        if self._left >= 0:
            await self.sock.put(data)

    # --- asking ---

    def number(self):
        """A packet id that is not in use."""
        while True:
            self.pid = self.pid % 65535 + 1
            if self.pid not in self.replies:
                return self.pid

    async def ask(self, number, limit, first, parts, length=0, content=b""):
        """Writes a packet, as `write` does, and returns what the hub answers to `number`.

        None when there is no session; HubError.
        """
        reply = self.replies[number] = asyncio.Event()
        reply.limit = limit
        try:
            if not await self.write(first, parts, length, content):
                return None
            await reply.wait()
        finally:
            del self.replies[number]
        if isinstance(reply.answer, HubError):
            raise reply.answer
        return reply.answer

    def give(self, number, answer):
        """Ends the wait of `ask`, where a HubError is raised. The first answer counts."""
        reply = self.replies.get(number)
        if reply and not reply.is_set():
            reply.answer = answer
            reply.set()

    async def send(self, topic, limit, length, content):
        """QoS 1: returns when the hub has acknowledged it. `topic` is below `prefix`.

        It is sent again when the connection was lost meanwhile, but not what a writer writes:
        HubError "closed" then. HubError "timeout" at `limit`.
        """
        while not self._window:
            self._room.clear()
            await wait_until(self._room, limit)
        self._window -= 1
        number = self.number()
        first = _PUBLISH_QOS1
        try:
            while True:
                await wait_until(self.up, limit)
                parts = (self.prefix + topic, number.to_bytes(2, "big"))
                try:
                    if await self.ask(number, limit, first, parts, length, content) is not None:
                        self.stats["acked"] += 1
                        return
                except HubError as e:
                    if callable(content) or self.up.is_set() or e.code == "stopped":
                        raise
                    first |= _DUP
                    self.stats["retried"] += 1
        finally:
            self._window += 1
            self._room.set()

    # --- reading ---

    async def read(self):
        """Reads and handles packets until HubError."""
        link = self.sock
        rx = self._rx
        have = 0
        while True:
            n = link.read(rx[have:])
            if n is None:
                await link.ready()
                continue
            self._pinged = None
            have += n
            at = 0
            while True:
                # One packet: its first byte, the size of its body in one to four bytes, its body.
                more = True
                size = shift = 0
                body = at + 1
                while more and body < have and shift < 28:
                    more = rx[body] > 127
                    size |= (rx[body] & 127) << shift
                    shift += 7
                    body += 1
                if more and shift == 28:
                    raise HubError("protocol", "length")
                if more or body + size > have:
                    break
                self._handle(rx[at], rx[body : body + size])
                at = body + size
            if at:
                have -= at
                rx[:have] = rx[at : at + have]
            elif have == _RX:
                await self._read_large(body, size)
                have = 0
            await asyncio.sleep_ms(0)  # a flood must not hold the loop

    async def _read_large(self, start, size):
        """The rest of a packet that begins at the start of the full buffer."""
        link = self.sock
        rx = self._rx
        first = rx[0]
        body = None
        if size <= self.max_message:
            try:
                body = bytearray(size)
            except MemoryError:
                pass
        cut = body is None
        if cut:  # what says which message it was is kept: topic and packet id
            self.stats["oversized"] += 1
            body = bytearray(min(size, (rx[start] << 8 | rx[start + 1]) + 4))
        body = memoryview(body)
        at = min(len(body), _RX - start)
        body[:at] = rx[start : start + at]
        rest = size - (_RX - start)
        while rest:
            n = link.read(body[at:] if at < len(body) else rx[: min(rest, _RX)])
            if n is None:
                await link.ready()
            else:
                self._pinged = None
                at += n
                rest -= n
        self._handle(first, body, cut)

    def _handle(self, first, body, cut=False):
        kind = first >> 4
        size = len(body)
        if kind == _PUBLISH and size > 2:
            at = 2 + (body[0] << 8 | body[1])
            qos = first >> 1 & 3
            payload = at + 2 if qos else at
            if payload <= size and qos < 2:
                try:
                    topic = str(body[2:at], "utf-8")
                except UnicodeError:
                    raise HubError("protocol", "topic")
                number = body[at] << 8 | body[at + 1] if qos else 0
                self.on_message(topic, None if cut else body[payload:], number)
                return
        elif kind == _PUBACK and size == 2 or kind == _SUBACK and size > 2:
            self.give(body[0] << 8 | body[1], max(body[2:]) if size > 2 else 0)
            return
        elif kind == _CONNACK and size == 2 and not self.alive:
            if body[1]:
                raise HubError("refused", body[1])
            self.alive = True
            self.since = clock.uptime()
            self.on_tick(True)
            return
        elif kind == _PINGRESP and not size:
            return
        raise HubError("protocol", "packet 0x%02x, %d bytes" % (first, size))
