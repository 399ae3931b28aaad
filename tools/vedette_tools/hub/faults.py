"""Faults on demand, for those who develop and test devices. At most one of each kind is active,
for a time or until it is cleared:

    throttle   twin requests are answered 429
    quota      the day's quota is used up: devices are disconnected, and refused
    grace      {"seconds": N}: a connection outlives its token by so much
    outage     the broker is down: connections are refused
    stall      the broker stands still, with all connections open
    network    {"latency_ms": N, "loss": 0 to 0.9}: each way; begins and ends with a disconnection
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from vedette_tools.errors import did_you_mean
from vedette_tools.hub.broker import Broker, Listener
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.relay import LOSS_MAX, Relay
from vedette_tools.hub.sessions import Sessions

log = logging.getLogger("vedette.hub.faults")

DURATION_MAX_S = 86400
LATENCY_MAX_MS = 60_000

Json = dict[str, Any]
End = Callable[[], Awaitable[None]]


class Faults:
    def __init__(self, broker: Broker, sessions: Sessions, listener: Listener) -> None:
        self._broker = broker
        self._sessions = sessions
        self._listener = listener
        self._active: dict[str, tuple[End, asyncio.TimerHandle | None]] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, Callable[[Json], Awaitable[End]]] = {
            "throttle": self._passive,
            "quota": self._quota,
            "grace": self._grace,
            "outage": self._outage,
            "stall": self._stall,
            "network": self._network,
        }

    def active(self, kind: str) -> bool:
        return kind in self._active

    async def begin(self, kind: str, request: Json) -> None:
        """Begin a fault; `for` in the request is how many seconds it lasts. One of the kind that
        is active is ended first. Errors: RequestError."""
        if kind not in self._kinds:
            next_step = did_you_mean(kind, self._kinds)
            raise RequestError(404, f"there is no fault {kind!r}", next_step)
        duration = _number(request, "for", DURATION_MAX_S, default=None)
        async with self._changing:
            await self._end(kind)
            finish = await self._kinds[kind](request)
            timer = None
            if duration is not None:
                timer = asyncio.get_running_loop().call_later(duration, self._end_later, kind)
            self._active[kind] = (finish, timer)
            log.info("fault %s begins", kind)

    async def end(self, kind: str) -> None:
        """End a fault, if it is active."""
        async with self._changing:
            await self._end(kind)

    async def _end(self, kind: str) -> None:
        if kind in self._active:
            finish, timer = self._active.pop(kind)
            if timer:
                timer.cancel()
            await finish()
            log.info("fault %s ends", kind)

    async def end_all(self) -> None:
        for kind in list(self._active):
            await self.end(kind)

    def _end_later(self, kind: str) -> None:
        task = asyncio.create_task(self.end(kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _passive(self, request: Json) -> End:
        return _nothing

    async def _quota(self, request: Json) -> End:
        self._sessions.kick_all()
        return _nothing

    async def _grace(self, request: Json) -> End:
        self._sessions.grace_s = _number(request, "seconds", DURATION_MAX_S)

        async def end() -> None:
            self._sessions.grace_s = 0.0

        return end

    async def _outage(self, request: Json) -> End:
        await self._end("network")
        await self._broker.suspend()
        return self._broker.resume

    async def _stall(self, request: Json) -> End:
        self._broker.stall(True)

        async def end() -> None:
            self._broker.stall(False)

        return end

    async def _network(self, request: Json) -> End:
        latency_s = _number(request, "latency_ms", LATENCY_MAX_MS, default=0) / 1000
        loss = _number(request, "loss", LOSS_MAX, default=0)
        await self._end("outage")
        inner = ("127.0.0.1", _free_port())
        relay = Relay(inner, latency_s, loss)
        await self._broker.suspend()
        await self._broker.resume(inner)
        await relay.start(*self._listener)

        async def end() -> None:
            await relay.stop()
            await self._broker.suspend()
            await self._broker.resume()

        return end


async def _nothing() -> None:
    pass


def _number(request: Json, name: str, most: float, default: Any = ...) -> Any:
    value = request.get(name, default)
    if value is default and default is not ...:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise RequestError(400, f"{name} has to be a number from 0 to {most}")
    return value


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
