"""What became of cloud-to-device messages whose senders asked for it by `iothub-ack`, kept until
a service client has taken it. Form: Microsoft's "Send cloud-to-device messages from an IoT hub".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from vedette_tools.hub import bag
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.database import Database
from vedette_tools.hub.store import CloudMessage

SUCCESS, EXPIRED, UNDELIVERED, PURGED = "Success", "Expired", "DeliveryCountExceeded", "Purged"

POLL_S = 0.5
BATCH_MAX = 64

Json = dict[str, Any]


def record(message: CloudMessage, outcome: str, generation: str) -> Json | None:
    """What the sender is to be told, or None where it does not want that."""
    properties = bag.decode(message.bag)
    wanted = "positive" if outcome == SUCCESS else "negative"
    if properties.get("iothub-ack") not in ("full", wanted):
        return None
    return {
        "originalMessageId": properties.get("$.mid"),
        "enqueuedTimeUtc": utc_now(),
        "statusCode": outcome,
        "description": outcome,
        "deviceId": message.device,
        "deviceGenerationId": generation,
    }


class Feedback:
    def __init__(self, database: Database, expire: Callable[[], Awaitable[None]]) -> None:
        """`expire` is to end what has waited for its device too long."""
        self._database = database
        self._expire = expire
        self._taken: set[int] = set()  # by a client that has not settled it yet

    async def take(self) -> dict[int, Json]:
        """The next records by their numbers, once there are some; `complete` or `release` them."""
        while True:
            await self._expire()
            found = await self._database.run(self._database.store.feedback)
            batch = [each for each in found if each[0] not in self._taken][:BATCH_MAX]
            if batch:
                self._taken.update(number for number, _ in batch)
                return dict(batch)
            await asyncio.sleep(POLL_S)

    async def complete(self, numbers: Iterable[int]) -> None:
        await self._database.run(self._database.store.delete_feedback, numbers)
        self.release(numbers)

    def release(self, numbers: Iterable[int]) -> None:
        """Another client may take them."""
        self._taken.difference_update(numbers)
