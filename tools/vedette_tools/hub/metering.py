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
from vedette_tools.hub.store import Event

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


def of_events(events: Iterable[Event]) -> Counter[str]:
    """Day -> units."""
    counted: Counter[str] = Counter()
    for event in events:
        counted[day(event.time_ms)] += message_units(event.bag, event.body)
    return counted
