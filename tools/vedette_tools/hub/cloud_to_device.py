"""Cloud-to-device messages: queued in the store, delivered to a device that is connected and has
subscribed, and kept until it acknowledges them.

A session's messages are acknowledged in the order of their delivery, as MQTT demands of a client;
so it is enough to be told that a client has acknowledged.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from vedette_tools.hub import bag, feedback, metering
from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.registry import Registry
from vedette_tools.hub.sessions import Session
from vedette_tools.hub.store import CloudMessage

log = logging.getLogger("vedette.hub.c2d")

BODY_MAX = 64 * 1024
PROPERTIES_MAX = 65_000  # encoded; they end the topic, of which MQTT has 65,535 bytes at most
PENDING_MAX = 50
DELIVERIES_MAX = 10
LIFETIME_S = 3600
LIFETIME_MAX_S = 2 * 86400

Deliver = Callable[[str, str, bytes, int], None]  # client id, topic, payload, QoS


def topic_filter(identity: Identity) -> str:
    return f"{identity.path}/messages/devicebound/#"


class CloudToDevice:
    def __init__(self, database: Database, registry: Registry, deliver: Deliver) -> None:
        self._database = database
        self._registry = registry
        self._store = database.store
        self._deliver = deliver
        self._unacknowledged: dict[str, deque[int]] = {}  # client id -> numbers, oldest first

    async def send(
        self, identity: Identity, properties: bag.Bag, body: bytes, lifetime_s: float
    ) -> None:
        """Queue a message. Errors: RequestError."""
        if len(body) > BODY_MAX:
            raise RequestError(413, f"the message has {len(body)} bytes; {BODY_MAX} is the limit")
        system = {"$.to": f"/{identity.path}/messages/devicebound"}
        message = CloudMessage(
            identity.device,
            int((time.time() + lifetime_s) * 1000),
            0,
            bag.encode({**system, **properties}),
            body,
        )
        if len(message.bag) > PROPERTIES_MAX:
            raise RequestError(413, f"the properties have over {PROPERTIES_MAX} bytes, encoded")
        await self.expire()  # it does not count as pending
        await self._database.run(self._add, message)

    async def purge(self, identity: Identity) -> int:
        """Drop what waits for a device; returns how many messages that were."""
        return await self._database.run(self._purge, identity.device)

    def begin(self, session: Session) -> None:
        """A session is new: it has been delivered nothing yet."""
        self._unacknowledged[session.identity.client_id] = deque()

    async def flush(self, session: Session) -> None:
        """Deliver what waits for a device, if this session has subscribed to it."""
        qos = session.subscriptions.get(topic_filter(session.identity))
        if qos is None or session.identity.module:
            return
        delivered = self._unacknowledged[session.identity.client_id]
        found = await self._database.run(self._due, session.identity.device, set(delivered), qos)
        if self._unacknowledged[session.identity.client_id] is not delivered:
            return  # a newer session has begun, and delivers
        for number, message in found:
            if number in delivered:
                continue  # by another flush, meanwhile
            if qos:
                delivered.append(number)
            topic = f"{session.identity.path}/messages/devicebound/{message.bag}"
            self._deliver(session.identity.client_id, topic, message.body, qos)

    async def acknowledged(self, client_id: str) -> None:
        delivered = self._unacknowledged.get(client_id)
        if delivered:
            number = delivered.popleft()
            await self._database.run(self._end_all, [number], feedback.SUCCESS)

    async def expire(self) -> None:
        """End what has waited too long, and is not on its way."""
        on_their_way = set().union(*self._unacknowledged.values())
        await self._database.run(self._expire, on_their_way)

    def _expire(self, spared: set[int]) -> None:
        expired = self._store.expired_cloud_messages(int(time.time() * 1000))
        self._end_all([each for each in expired if each not in spared], feedback.EXPIRED)

    def _end(self, number: int, outcome: str) -> None:
        """Delete a message, and keep what its sender wants to be told."""
        message = self._store.cloud_message(number)
        device = self._registry.get(Identity(message.device)) if message else None
        self._store.delete_cloud_message(number)
        if message and device:
            record = feedback.record(message, outcome, device["generationId"])
            if record:
                self._store.add_feedback(record)

    def _purge(self, device: str) -> int:
        waiting = [number for number, _ in self._store.cloud_messages(device)]
        self._end_all(waiting, feedback.PURGED)
        return len(waiting)

    def _end_all(self, numbers: list[int], outcome: str) -> None:
        with self._store.transaction():
            for number in numbers:
                self._end(number, outcome)

    def _add(self, message: CloudMessage) -> None:
        if self._store.count_cloud_messages(message.device) >= PENDING_MAX:
            raise RequestError(403, f"{PENDING_MAX} messages wait for {message.device} already")
        with self._store.transaction():
            self._store.add_cloud_message(message)
            units = metering.message_units(message.bag, message.body)
            self._store.meter(metering.today(), units)

    def _due(self, device: str, delivered: set[int], qos: int) -> list[tuple[int, CloudMessage]]:
        """What is to be delivered now. With QoS 0 nothing will be acknowledged, so it goes."""
        due = []
        with self._store.transaction():
            for number, message in self._store.cloud_messages(device):
                if number in delivered:
                    continue
                expired = message.expiry_ms < time.time() * 1000
                if expired or message.deliveries >= DELIVERIES_MAX:
                    log.warning("a message for %s is dropped: it was not taken in time", device)
                    self._end(number, feedback.EXPIRED if expired else feedback.UNDELIVERED)
                    continue
                due.append((number, message))
                if qos == 0:
                    self._end(number, feedback.SUCCESS)
            self._store.count_delivery(number for number, _ in due)
        return due
