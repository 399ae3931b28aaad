"""The stored events, and a way to wait for more of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from vedette_tools.hub.database import Database
from vedette_tools.hub.store import Event

AT_ONCE = 500

Numbered = list[tuple[int, Event]]


class Events:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = database.store
        self._batches = 0
        self._more = asyncio.Condition()

    async def notify(self) -> None:
        """Some were stored, or may have been."""
        async with self._more:
            self._batches += 1
            self._more.notify_all()

    async def read(
        self, *, after: int, last: int, device: str | None, since_ms: int, follow: bool
    ) -> AsyncIterator[Numbered]:
        """The events numbered over `after`, or only the `last` so many of those there are; of one
        device; since a time. With `follow` it goes on for ever."""
        if last:
            first = await self._database.run(self._store.event_before_last, last, device)
            after = max(after, first)
        while True:
            seen = self._batches
            found = await self._database.run(self._store.events, after, AT_ONCE, device, since_ms)
            if found:
                after = found[-1][0]
                yield found
            elif not follow:
                return
            else:
                async with self._more:
                    while self._batches == seen:
                        await self._more.wait()
