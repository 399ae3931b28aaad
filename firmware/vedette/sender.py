"""Takes events from the outbox to the hub: one message at a time, forgotten on PUBACK only."""

import asyncio
import random

from iothub import HubError, clock
from micropython import const

from . import log, messages
from .outbox import TRIED

_UNIT = const(4096)  # bytes; what a hub meters by
_HUB_MAX = const(262144)  # bytes of a message
_PIECES = const(8)  # rendered in a row before the application's tasks have their turn
_RETRY_MIN_S = const(5)
_RETRY_MAX_S = const(300)
_DAY = const(86400)
_INTERFACE = "urn:azureiot:Security:SecurityAgent:1"


class Sender:
    """`wake()` asks for what is waiting to be sent. Needs a client and the agent's other parts.

    Counters are of messages since the start. `day` is a UTC day, in days since 1970, and what was
    acknowledged on it: messages, units, bytes.
    """

    def __init__(self, client, outbox, settings, agent_id):
        self._client = client
        self._outbox = outbox
        self._settings = settings
        self._agent_id = agent_id
        self._wake = asyncio.Event()
        self.sent = 0
        self.acknowledged = 0
        self.retried = 0
        self.events_sent = 0
        self.errors = 0
        self.day = [0, 0, 0, 0]
        self.quota_waits = 0

    def wake(self, *_):
        self._wake.set()

    async def run(self):
        """Runs for ever; what cannot be sent stays in the outbox."""
        retry = 0
        while True:
            if retry:
                await self._rest(retry)
            else:
                await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
                retry = 0
                continue
            except HubError as error:
                log.warning("not sent, kept: %s" % error)
            except Exception as error:  # such as no heap for now: all is kept, and tried again
                self.errors += 1
                log.failed("sending", error)
            retry = min(max(2 * retry, _RETRY_MIN_S), _RETRY_MAX_S)

    async def _rest(self, seconds):
        try:
            limit = seconds * (75 + random.getrandbits(6)) // 100
            await asyncio.wait_for(self._wake.wait(), max(limit, 1))
        except asyncio.TimeoutError:
            pass

    async def flush(self):
        """Sends what is waiting while that goes; HubError when it does not."""
        outbox = self._outbox
        self._expire()
        revision = outbox.revision
        try:
            while outbox.count and self._client.connected:
                allowance = self._allowance()
                outbox.hold()
                try:
                    outbox.stamp()
                    chosen, length = await self._pack(allowance)
                    if not chosen:
                        self.quota_waits += 1
                        return
                    await self._send(chosen, length)
                finally:
                    outbox.release()
        finally:
            if outbox.revision != revision:
                outbox.changed.set()

    def _expire(self):
        limit = 60 * self._settings["IothubModule_MessageTimeout"]
        # What is from before a reset can be too old; the clock tells, and the hub's certificate
        # tells if that is right.
        if not self._client.connected and clock.uptime() <= limit:
            return
        before = self._outbox.expired
        self._outbox.expire(limit)
        if self._outbox.expired > before:
            log.warning("%d events too old to send" % (self._outbox.expired - before))

    def _allowance(self):
        """What the day's quota leaves for one message, in bytes."""
        today = clock.unix() // _DAY
        if today != self.day[0]:
            self.day[:] = (today, 0, 0, 0)
        quota = self._settings["Message_DailyQuota"]
        return min((quota - self.day[2]) * _UNIT, _HUB_MAX) if quota else _HUB_MAX

    async def _pack(self, allowance):
        """Returns ([(offset, part)], length of their message): High first, then oldest first.

        An event longer than Message_MaxSize, which was more when it was collected, goes alone.
        """
        outbox = self._outbox
        chosen = []
        total = len(messages.opening(self._agent_id)) + len(messages.CLOSING)
        limit = min(allowance, self._settings["Message_MaxSize"])
        for offset in outbox.entries():
            _, _, parts, done, _, _, _, _, _ = outbox.header(offset)
            for part in range(done, parts):
                room = (limit if chosen else allowance) - total - (1 if chosen else 0)
                size = await self._measure(messages.event(outbox, offset, part), room)
                if size > room:
                    break
                total += size + (1 if chosen else 0)
                chosen.append((offset, part))
        return chosen, total

    async def _measure(self, pieces, room):
        """The length of the pieces together; once it is more than `room`, it may be too little."""
        total = 0
        count = 0
        for piece in pieces:
            total += len(piece)
            count += 1
            if total > room:
                break
            if count % _PIECES == 0:
                await asyncio.sleep_ms(0)
        return total

    async def _send(self, chosen, length):
        outbox = self._outbox
        offset, part = chosen[0]
        properties = {
            "$.ct": "application/json",
            "$.ce": "utf-8",
            "$.mid": messages.uuid(outbox.header(offset)[-1], part),
            "$.ifid": _INTERFACE,
        }
        again = [offset for offset in {entry[0] for entry in chosen} if outbox.mark(offset, TRIED)]
        self.sent += 1
        self.retried += 1 if again else 0

        async def write_all(write):
            count = 0
            for piece in messages.message(outbox, chosen, self._agent_id):
                await write(piece.encode() if isinstance(piece, str) else piece)
                count += 1
                if count % _PIECES == 0:
                    await asyncio.sleep_ms(0)

        await self._client.send_stream(length, write_all, properties)
        self.acknowledged += 1
        self.events_sent += len(chosen)
        self.day[1] += 1
        self.day[2] += (length + _UNIT - 1) // _UNIT
        self.day[3] += length
        for offset, _ in chosen:
            outbox.acknowledge(offset)
