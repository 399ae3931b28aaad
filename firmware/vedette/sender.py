"""When events go from the outbox to the hub, and what is known of it; `sending` is the work."""

import asyncio
import random

from iothub import HubError, clock
from micropython import const

from . import log
from .cold import Cold

_RETRY_MIN_S = const(5)
_RETRY_MAX_S = const(300)


class Sender:
    """`wake()` asks for what is waiting to be sent. Needs a client and the agent's other parts.

    Counters are of messages since the start. `day` is a UTC day, in days since 1970, and what was
    acknowledged on it: messages, units, bytes.
    """

    def __init__(self, client, outbox, settings, agent_id):
        self.client = client
        self.outbox = outbox
        self.settings = settings
        self.agent_id = agent_id
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
        limit = 60 * self.settings["IothubModule_MessageTimeout"]
        # Without the hub there is nothing to do until something can be too old. What is from
        # before a reset can be, too; the clock tells, and the hub's certificate if that is right.
        if self.outbox.count and (self.client.connected or clock.uptime() > limit):
            with Cold():
                from . import sending

                await sending.flush(self, limit)
