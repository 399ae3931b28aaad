"""MQTT 3.1.1 on asyncio, over umqtt.simple: what that lacks for a client that must not wait.

Several messages of QoS 1 are in flight, packet ids wrap, what arrives is read into one buffer
without blocking, and nothing is waited for without a limit.
Source: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html
"""

import asyncio
from time import ticks_add, ticks_diff, ticks_ms

from micropython import const
from umqtt.simple import MQTTClient

from .errors import HubError

_CONNECT = const(0x10)
_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_PINGRESP = const(0xD0)
_DUP = const(0x08)
_QOS1 = const(0x02)

_RX = const(1024)  # bytes read at once; a longer message is read into a buffer of its own
_WINDOW = const(8)  # messages in flight
_ACKS = const(64)  # that wait for a packet to end: more than a hub has under way (50)
_PAUSE_MS = const(10)
_STALL_MS = const(20000)  # without progress in writing
_PONG_MS = const(20000)  # for the answer to a ping, or half of the keep-alive time


class Reply(asyncio.Event):
    """Something awaited from the hub, until `due` (`ticks_ms`)."""

    asked = True  # false while the question itself still waits for a connection

    def expect(self, due):
        self.clear()
        self.due = due

    def give(self, value):
        """Ends the wait. A HubError is raised there."""
        self.value = value
        self.set()

    async def get(self):
        await self.wait()
        if isinstance(self.value, HubError):
            raise self.value
        return self.value


async def wait_until(event, due):
    """Waits for an asyncio.Event; HubError "timeout" at `due` (`ticks_ms`)."""
    if not event.is_set():
        try:
            await asyncio.wait_for_ms(event.wait(), max(0, ticks_diff(due, ticks_ms())))
        except asyncio.TimeoutError:
            raise HubError("timeout", "not connected in time")


class Mqtt(MQTTClient):
    """One MQTT session at a time over `link`.

    `on_up()` is called when the hub has accepted the client, and for each message
    `on_message(topic, payload, packet_id)`: payload is a memoryview that is valid only during the
    call, or None when the message was over `max_message` bytes; packet_id is 0, or for QoS 1 what
    `acknowledge` takes.
    """

    def __init__(self, link, keepalive, max_message, on_up, on_message):
        super().__init__("", "", keepalive=keepalive)
        self.sock = link  # umqtt's writers collect into it
        self.alive = False  # from CONNACK until the connection ends
        self.up = asyncio.Event()  # set by the owner while messages of QoS 1 may be sent
        self.prefix = ""  # of their topics; it may be another after a reconnect
        self.stats = {"sent": 0, "acked": 0, "retried": 0, "pings": 0, "oversized": 0}
        # What is awaited, by packet id; negative numbers are for answers that come as messages.
        self.replies = {}
        self._on_up = on_up
        self._on_message = on_message
        self._max_message = max_message
        self._sending = asyncio.Lock()  # held while a packet is written
        self._unsent_acks = []
        self._window = _WINDOW
        self._spare = []
        self._room = asyncio.Event()
        self._rx = bytearray(_RX)
        self._header = bytearray(5)
        self._heard = self._spoke = 0
        self._pinged = None

    async def _write(self, first, parts, length=0, body=None, writer=None):
        """Writes a packet: `parts` (text has its length before it), then `length` bytes.

        False, and nothing is written, when there is no session for it.
        """
        size = length
        for part in parts:
            size += len(part) + 2 if isinstance(part, str) else len(part)
        link = self.sock
        await self._sending.acquire()
        if first & 0xF2 == _PUBLISH | _QOS1:
            ready = self.up.is_set()
        else:
            ready = self.alive or first == _CONNECT
        if not ready:
            self._sending.release()
            return False
        whole = False
        try:
            if link.collected:
                await link.flush()
            header = self._header
            header[0] = first
            n = 1
            while size > 127:
                header[n] = size & 127 | 128
                size >>= 7
                n += 1
            header[n] = size
            link.write(header, n + 1)
            for part in parts:
                if isinstance(part, str):
                    self._send_str(part.encode())
                else:
                    link.write(part)
            if body:
                await link.put(body)
            elif writer:
                await self._stream(writer, length)
            await link.flush()
            whole = True
            self._spoke = ticks_ms()
        finally:
            self._sending.release()
            if not whole:  # nothing can follow half a packet
                self.alive = False
                self.up.clear()
                link.drop()
        if self._unsent_acks:
            self._push_acks()
        return True

    async def _stream(self, writer, length):
        left = length

        async def write(chunk):
            nonlocal left
            left -= len(chunk)
            if left >= 0:
                await self.sock.put(chunk)

        try:
            await writer(write)
        except HubError:
            raise
        except Exception as e:
            raise HubError("writer", "the writer of a message raised " + type(e).__name__)
        if left:
            raise HubError("writer", "a message of %d bytes was %d long" % (length, length - left))

    def _next_id(self):
        while True:
            self.pid = self.pid % 65535 + 1
            if self.pid not in self.replies:
                return self.pid

    async def connect(self, client_id, user, password, clean_session):
        """Asks to be accepted; `read` hears the answer."""
        self._heard = ticks_ms()
        flags = 0x80 | clean_session << 1
        parts = [b"\0\x04MQTT\x04", None, client_id, user]
        if password:
            flags |= 0x40
            parts.append(password)
        parts[1] = bytes((flags, self.keepalive >> 8, self.keepalive & 255))
        await self._write(_CONNECT, parts)

    async def subscribe(self, filters, due):
        """Subscribes to a list of (topic filter, QoS) in one packet; HubError "refused"."""
        packet_id = self._next_id()
        reply = self.replies[packet_id] = Reply()
        reply.expect(due)
        parts = [packet_id.to_bytes(2, "big")]
        for topic_filter, qos in filters:
            parts.append(topic_filter)
            parts.append(bytes((qos,)))
        try:
            if not await self._write(_SUBSCRIBE, parts):
                raise HubError("closed", "not connected")
            if await reply.get() > 2:
                raise HubError("refused", "the hub refused a subscription")
        finally:
            del self.replies[packet_id]

    async def publish(self, topic, body):
        """QoS 0."""
        if not await self._write(_PUBLISH, (topic,), len(body), body):
            raise HubError("closed", "not connected")

    async def publish_acked(self, topic, due, length, body=None, writer=None):
        """QoS 1: returns when the hub has acknowledged it.

        A `body` is sent again when the connection was lost meanwhile. What a `writer` writes is
        not: HubError "closed" then. HubError "timeout" at `due`.
        """
        reply = await self._slot(due)
        reply.expect(due)
        packet_id = self._next_id()
        self.replies[packet_id] = reply
        first = _PUBLISH | _QOS1
        stats = self.stats
        try:
            while True:
                reply.asked = False
                await wait_until(self.up, due)
                reply.asked = True
                reply.expect(due)
                parts = (self.prefix + topic, packet_id.to_bytes(2, "big"))
                try:
                    if not await self._write(first, parts, length, body, writer):
                        continue
                    stats["sent"] += 1
                    await reply.get()
                    stats["acked"] += 1
                    return
                except HubError as e:
                    if writer or self.up.is_set() or e.code == "stopped":
                        raise
                stats["retried"] += 1
                first |= _DUP
        finally:
            del self.replies[packet_id]
            self._spare.append(reply)
            self._room.set()

    async def _slot(self, due):
        """A place in the window of messages in flight."""
        while not self._spare:
            if self._window:
                self._window -= 1
                return Reply()
            self._room.clear()
            await wait_until(self._room, due)
        return self._spare.pop()

    def acknowledge(self, packet_id):
        """PUBACK, as soon as no packet is being written."""
        if packet_id and len(self._unsent_acks) < _ACKS:
            self._unsent_acks.append(packet_id)
            self._push_acks()

    def _push_acks(self):
        link = self.sock
        if self._sending.locked() or link.collected:
            return
        for packet_id in self._unsent_acks:
            link.write(b"\x40\x02")
            link.write(packet_id.to_bytes(2, "big"))
        self._unsent_acks.clear()
        link.push()

    async def read(self):
        """Handles what comes, until HubError."""
        link = self.sock
        rx = self._rx
        view = memoryview(rx)
        have = 0
        while True:
            n = link.read(view[have:] if have else rx)
            if n is None:
                await link.readable()
                continue
            self._heard = ticks_ms()
            self._pinged = None
            have += n
            at = 0
            while have - at > 1:
                size = rx[at + 1]
                body = at + 2
                if size > 127:
                    size, body = self._length(at, have)
                end = body + size
                if not body or end > have:
                    break
                self._handle(rx[at], view[body:end])
                at = end
            if at:
                have -= at
                if have:
                    rx[:have] = rx[at : at + have]
            elif have == _RX:
                await self._read_large(view, body, size)
                have = 0
            if n == _RX:
                await asyncio.sleep_ms(0)  # a flood must not hold the loop

    def _length(self, at, have):
        """Remaining length and where it ends; (0, 0) when it has not come whole."""
        size = 0
        for i in range(1, 5):
            if at + i == have:
                return 0, 0
            byte = self._rx[at + i]
            size |= (byte & 127) << 7 * (i - 1)
            if byte < 128:
                return size, at + i + 1
        raise HubError("protocol", "a packet's length is malformed")

    async def _read_large(self, view, start, size):
        """The rest of a packet that began at the start of the full buffer `view`."""
        link = self.sock
        first = view[0]
        rest = size - (_RX - start)
        whole = None
        if size <= self._max_message:
            try:
                whole = memoryview(bytearray(size))
                whole[: _RX - start] = view[start:]
            except MemoryError:
                whole = None
        if whole is None:
            self.stats["oversized"] += 1
            self._handle(first, view[start:], True)
        while rest:
            n = link.read(whole[-rest:] if whole else view[: min(rest, _RX)])
            if n is None:
                await link.readable()
            else:
                self._heard = ticks_ms()
                rest -= n
        if whole:
            self._handle(first, whole)

    def _handle(self, first, body, cut=False):
        kind = first & 0xF0
        size = len(body)
        if kind == _PUBACK and size == 2 or kind == _SUBACK and size > 2:
            reply = self.replies.get(body[0] << 8 | body[1])
            if reply:
                reply.give(max(body[2:]) if size > 2 else 0)
        elif kind == _PUBLISH and size > 2:
            self._handle_publish(first, body, cut)
        elif kind == _CONNACK and size == 2 and not self.alive:
            if body[1]:
                raise HubError(
                    "refused",
                    "the hub refused the device (%d): check its id and key, and that it is enabled"
                    % body[1],
                )
            self.alive = True
            self._on_up()
        elif kind != _PINGRESP or size:
            raise HubError("protocol", "an unexpected packet (0x%02x, %d bytes)" % (first, size))

    def _handle_publish(self, first, body, cut):
        at = 2 + (body[0] << 8 | body[1])
        qos = first >> 1 & 3
        payload = at + 2 if qos else at
        if payload > len(body) or qos > 1:
            raise HubError("protocol", "a malformed message")
        try:
            topic = str(body[2:at], "utf-8")
        except UnicodeError:
            raise HubError("protocol", "a topic that is not UTF-8")
        packet_id = body[at] << 8 | body[at + 1] if qos else 0
        self._on_message(topic, None if cut else body[payload:], packet_id)

    def goodbye(self):
        """DISCONNECT, if that can be written at once, and the end of the connection."""
        if self._sending.locked() or self.sock.collected:
            self.sock.drop()
        else:
            self.disconnect()

    async def pause(self, limit_ms):
        """Lets no new message be sent, and waits until what was sent is answered."""
        self.up.clear()
        due = ticks_add(ticks_ms(), limit_ms)
        while ticks_diff(due, ticks_ms()) > 0 and (
            self._sending.locked() or any([reply.asked for reply in self.replies.values()])
        ):
            await asyncio.sleep_ms(_PAUSE_MS)

    def lost(self, error):
        """Ends the session: whoever waits for the hub is told `error`."""
        self.alive = False
        self.up.clear()
        self.sock.drop()
        self._pinged = None
        self._unsent_acks.clear()
        for reply in self.replies.values():
            reply.give(error)

    def check(self):
        """What is due: to be called about twice a second. HubError when the hub is silent."""
        now = ticks_ms()
        link = self.sock
        overdue = False
        for reply in self.replies.values():
            if ticks_diff(now, reply.due) > 0:
                overdue = True
                reply.give(HubError("timeout", "the hub did not answer in time"))
        if link.blocked_since is not None and ticks_diff(now, link.blocked_since) > _STALL_MS:
            raise HubError("timeout", "the hub stopped reading")
        if not self.alive:
            return
        if self._pinged is not None:
            if ticks_diff(now, self._pinged) > min(self.keepalive * 500, _PONG_MS):
                raise HubError("timeout", "the hub does not answer")
        elif self._sending.locked():
            return
        elif link.collected:
            link.push()
        elif overdue or self._silence(now) > self.keepalive * 750:
            self.stats["pings"] += 1
            self._pinged = self._spoke = now
            self.ping()
            link.push()

    def _silence(self, now):
        return max(ticks_diff(now, self._heard), ticks_diff(now, self._spoke))
