"""The hub's built-in endpoint: its events as Event Hubs has them, for AMQP.

What a reader asks for, and what it gets, are Event Hubs' management requests, selectors and
annotations, with IoT Hub's own ones: Microsoft's "AMQP 1.0 in Azure Service Bus and Event Hubs
protocol guide", and "Create and read IoT Hub messages".
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from proton import (  # type: ignore[import-not-found,unused-ignore]
    Message,
    symbol,
    timestamp,
)

from vedette_tools.hub import NAME, bag
from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.events import Events
from vedette_tools.hub.store import PARTITIONS, Event, partition_of

SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time) (>=?) '([^']*)'"
)
READ, HUB_TYPE, PARTITION_TYPE = "READ", "com.microsoft:eventhub", "com.microsoft:partition"

Json = dict[str, Any]


class EventHub:
    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events
        self._created_ms = int(time.time() * 1000)

    async def described(self, request: Mapping[str, Any]) -> Json:
        """The answer to a management request. Errors: RequestError (400, 404)."""
        if request.get("operation") != READ or request.get("name") != NAME:
            raise RequestError(404, f"only READ of {NAME} is here")
        if request.get("type") == HUB_TYPE:
            return {
                "name": NAME,
                "created_at": timestamp(self._created_ms),
                "partition_count": len(PARTITIONS),
                "partition_ids": list(PARTITIONS),
            }
        partition = request.get("partition")
        if request.get("type") != PARTITION_TYPE or partition not in PARTITIONS:
            raise RequestError(404, "no such partition")
        ends = await self._database.run(self._database.store.ends, partition)
        (first, _), (last, last_ms) = ends or ((0, 0), (-1, 0))
        return {
            "name": NAME,
            "partition": partition,
            "begin_sequence_number": first,
            "last_enqueued_sequence_number": last,
            "last_enqueued_offset": str(last),
            "last_enqueued_time_utc": timestamp(last_ms),
            "is_partition_empty": not ends,
        }

    async def read(self, partition: str, selector: str) -> AsyncIterator[Message]:
        """A partition's events from where a selector says, for ever. Errors: RequestError."""
        place = SELECTOR.fullmatch(selector)
        if not place:
            raise RequestError(400, f"the selector {selector!r} is not one of Event Hubs")
        kind, sign, text = place.groups()
        if text == "@latest":
            after = await self._database.run(self._database.store.event_before_last, 0)
            kind = "offset"
        elif re.fullmatch(r"-?\d{1,18}", text):
            after = int(text) - (sign == ">=")
        else:
            raise RequestError(400, f"the selector {selector!r} names no place")
        by_time = kind == "enqueued-time"
        found = self._events.read(
            after=-1 if by_time else after,
            since_ms=after + 1 if by_time else 0,
            last=0,
            device=None,
            follow=True,
        )
        async for batch in found:
            for number, event in batch:
                if partition_of(event.device) == partition:
                    yield _message(number, event)


def _message(number: int, event: Event) -> Message:
    own, system = bag.split(bag.decode(event.bag))
    named = {bag.NAMES_OF_EVENTS[key]: text for key, text in system.items()
             if key in bag.NAMES_OF_EVENTS}  # fmt: skip
    user = named.get("user-id")
    annotations = {
        "iothub-connection-device-id": event.device,
        "iothub-connection-module-id": event.module or None,
        "iothub-interface-id": named.get("iothub-interface-id"),
        "iothub-enqueuedtime": timestamp(event.time_ms),
        "iothub-message-source": "Telemetry",
        "x-opt-sequence-number": number,
        "x-opt-offset": str(number),
        "x-opt-enqueued-time": timestamp(event.time_ms),
    }
    message = Message(
        event.body,
        id=named.get("message-id"),
        correlation_id=named.get("correlation-id"),
        content_type=named.get("content-type"),
        content_encoding=named.get("content-encoding"),
        user_id=user.encode() if user else b"",
        properties=own,
        inferred=True,  # data, not a value
    )
    message.annotations = {
        symbol(name): value for name, value in annotations.items() if value is not None
    }
    return message
