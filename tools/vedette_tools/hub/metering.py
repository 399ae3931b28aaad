"""How many messages an exchange counts as against the daily quota: units of 4 KB.

Charged are messages both ways, reads and updates of twins from both sides, queries, and a method's
request and its answer; the registry is free. Source: Microsoft's "Azure IoT Hub billing
information". A message's size, as in their "Create and read IoT Hub messages", is that of the
body, the values of the system properties, and the names and values of the sender's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vedette_tools.hub import bag
from vedette_tools.hub.clock import utc, utc_now
from vedette_tools.hub.store import Event, Store

UNIT_BYTES = 4096


def units(size: int) -> int:
    """The units of so many bytes."""
    return max(1, -(-size // UNIT_BYTES))


def message_units(text: str, body: bytes) -> int:
    """The units of a message; `text` is its property bag."""
    own, system = bag.split(bag.decode(text))
    values = [*own.keys(), *own.values(), *system.values()]
    return units(len(body) + sum(len(value.encode()) for value in values if value))


def day(time_ms: int) -> str:
    """The day of the quota, which begins at midnight UTC."""
    return utc(time_ms)[:10]


def today() -> str:
    return utc_now()[:10]


class Quota:
    """The units of a day, `limit` of them where that is not None."""

    def __init__(self, store: Store, limit: int | None) -> None:
        self.limit = limit
        self._store = store
        self._last_day = ""  # whose quota is used up

    def used_up(self) -> bool:
        """As of the last check."""
        return self._last_day == today()

    def check(self) -> bool:
        """Whether it has been used up since the last check. For the database thread."""
        if self.limit is None or self.used_up() or self._store.metered(today()) < self.limit:
            return False
        self._last_day = today()
        return True


def of_events(events: Iterable[Event]) -> Counter[str]:
    """Day -> units."""
    counted: Counter[str] = Counter()
    for event in events:
        counted[day(event.time_ms)] += message_units(event.bag, event.body)
    return counted
