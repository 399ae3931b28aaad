"""The hub: what its parts share, and what happens between them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vedette_tools.hub import bag, cloud_to_device, methods, registry, sas, twin
from vedette_tools.hub.broker import Broker, BrokerConfig, BrokerEvents, ConnectRequest
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.cloud_to_device import CloudToDevice
from vedette_tools.hub.device_api import (
    TWIN_ANSWERS,
    DeviceApi,
    Effect,
    Kick,
    MethodResult,
    Reply,
)
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.methods import Methods
from vedette_tools.hub.sessions import Session, Sessions
from vedette_tools.hub.spool import DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, Record, Spool
from vedette_tools.hub.store import Store

log = logging.getLogger("vedette.hub")

DESIRED_CHANGES = "$iothub/twin/PATCH/properties/desired/#"

Json = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Hub:
    """Lives on one event loop; what touches the store runs in one thread, in turn."""

    def __init__(self, state: Path, broker: BrokerConfig) -> None:
        self._database = ThreadPoolExecutor(1, "database")
        self._store = Store(state / "hub.db")
        self.registry = registry.Registry(self._store.identities())
        self.owner_key: str = self._kept("owner_key", sas.new_key)
        self.sessions = Sessions(
            self.registry,
            self._kick,
            lambda identity: self._background(
                self.in_database(self._store.delete_subscriptions, identity)
            ),
        )
        self.methods = Methods(self.sessions.of, lambda *message: self.broker.deliver(*message))
        self.cloud_to_device = CloudToDevice(
            self._store, self.in_database, lambda *message: self.broker.deliver(*message)
        )
        self._spool = Spool(state / "spool")
        self._devices = DeviceApi(self._store, self._spool, self.sessions.by_token)
        self.broker = Broker(
            broker,
            BrokerEvents(
                admit=self._admit,
                spooled=self._wake,
                will=self._will,
                acknowledged=lambda client: self._background(
                    self.cloud_to_device.acknowledged(client)
                ),
                died=self.sessions.close_all,
            ),
        )
        self._spooled = asyncio.Event()
        self._stored = asyncio.Condition()
        self.batches = 0  # of events, stored since the start
        self._taker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Errors: HubStartError."""
        while await self.in_database(self._devices.take) is not None:
            pass  # what the last run left behind; its sessions are gone
        for identity, topic_filter, qos in await self.in_database(
            lambda: list(self._store.subscriptions())
        ):
            self.sessions.remembered.setdefault(identity, {})[topic_filter] = qos
        await self.broker.start(lambda: self._spool.next_number(self._devices.position))
        self._taker = asyncio.create_task(self._take_spooled())

    async def stop(self) -> None:
        await self.broker.stop()
        if self._taker:
            self._taker.cancel()
            await asyncio.wait([self._taker])
        while await self.in_database(self._devices.take) is not None:
            pass
        self._database.shutdown()
        self._store.close()

    async def in_database(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._database, lambda: work(*args, **kwargs)
        )

    # --- what devices send ---

    def _admit(self, request: ConnectRequest) -> str | None:
        session = self.sessions.admit(request)
        if session is None:
            return None
        self.cloud_to_device.begin(session)
        for topic_filter in session.subscriptions:
            self._subscribed(session, topic_filter)
        return session.name

    def _subscribed(self, session: Session, topic_filter: str) -> None:
        if topic_filter == methods.TOPIC_FILTER:
            self._background(self.methods.subscribed())
        elif topic_filter == cloud_to_device.topic_filter(session.identity):
            self._background(self.cloud_to_device.flush(session))

    def _wake(self) -> None:
        self._spooled.set()

    async def _take_spooled(self) -> None:
        while True:
            await self._spooled.wait()
            self._spooled.clear()
            while (effects := await self.in_database(self._devices.take)) is not None:
                for effect in effects:
                    self._perform(effect)
                await self._tell_stored()

    def _perform(self, effect: Effect) -> None:
        session = self.sessions.by_token.get(effect.token)
        if session is None:
            return
        match effect:
            case Reply():
                self._deliver(session, TWIN_ANSWERS, effect.topic, effect.payload)
            case Kick():
                self._kick(session)
            case MethodResult():
                self.methods.answered(effect)
            case Record(kind=kind) if kind == SUBSCRIBE:
                session.subscriptions[effect.topic] = effect.qos
                self._subscribed(session, effect.topic)
            case Record(kind=kind) if kind == UNSUBSCRIBE:
                session.subscriptions.pop(effect.topic, None)
            case Record(kind=kind) if kind == DISCONNECT:
                self.sessions.close(effect.token)

    def _will(self, topic: str, payload: bytes) -> None:
        async def keep() -> None:
            await self.in_database(self._devices.will, topic, payload, int(time.time() * 1000))
            await self._tell_stored()

        self._background(keep())

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_stored(self) -> None:
        async with self._stored:
            self.batches += 1
            self._stored.notify_all()

    def _kick(self, session: Session) -> None:
        self.broker.kick(session.name)

    def _deliver(self, session: Session, topic_filter: str, topic: str, payload: bytes) -> bool:
        """False where the session has not subscribed to such messages."""
        if topic_filter not in session.subscriptions:
            return False
        self.broker.deliver(session.identity.client_id, topic, payload)
        return True

    # --- what the service side asks for ---

    def kick(self, identity: Identity) -> None:
        """Errors: RequestError (404)."""
        session = self.sessions.of(identity)
        if session is None:
            raise RequestError(404, f"{identity} is not connected")
        self._kick(session)

    async def put_identity(self, identity: Identity, request: Json, if_match: str | None) -> Json:
        """Create an identity, or update it where `if_match` fits. Errors: RequestError."""
        old = self.registry.get(identity)
        if identity.module and Identity(identity.device) not in self.registry:
            raise RequestError(404, f"there is no device {identity.device!r}")
        if old is None and if_match:
            raise RequestError(404, f"there is no {str(identity)!r} to update")
        if old is not None:
            if not if_match:
                raise RequestError(409, f"{str(identity)!r} is there already")
            check_etag(old["etag"], if_match)
        now = utc_now()
        record = registry.apply(old or registry.new_record(identity, now), request)
        self.registry[identity] = record
        document = {**twin.new(now), "etag": registry.new_etag()}
        await self.in_database(self._store.put_identity, identity, record, document)
        if record.get("status") == "disabled" and (session := self.sessions.of(identity)):
            self._kick(session)
        return record

    async def delete_identity(self, identity: Identity, if_match: str | None) -> None:
        """Errors: RequestError."""
        check_etag(self.record(identity)["etag"], if_match)
        for other in list(self.registry):
            if other == identity or (not identity.module and other.device == identity.device):
                del self.registry[other]
                self.sessions.remembered.pop(other, None)
                if session := self.sessions.of(other):
                    self._kick(session)
        await self.in_database(self._store.delete_identity, identity)

    def record(self, identity: Identity) -> Json:
        """An identity's record as it is now. Errors: RequestError (404)."""
        record = self.registry.get(identity)
        if record is None:
            raise RequestError(404, f"there is no {str(identity)!r}")
        connected = self.sessions.of(identity) is not None
        return {**record, "connectionState": "Connected" if connected else "Disconnected"}

    async def described(self, identity: Identity) -> Json:
        """A record with what has to be looked up. Errors: RequestError (404)."""
        record = self.record(identity)
        if not identity.module:
            waiting = await self.in_database(self._store.count_cloud_messages, identity.device)
            record["cloudToDeviceMessageCount"] = waiting
        return record

    async def twin(self, identity: Identity) -> Json:
        """Errors: RequestError (404)."""
        self.record(identity)
        document: Json = await self.in_database(self._store.twin, identity)
        return document

    async def update_twin(
        self, identity: Identity, request: Json, if_match: str | None, *, replace: bool
    ) -> Json:
        """Patch a twin's desired properties and tags, or replace them. Errors: RequestError."""
        self.record(identity)
        updated: Json = await self.in_database(
            self._update_twin, identity, request, if_match, replace
        )
        patch = _desired_of(request)
        session = self.sessions.of(identity)
        if patch is not None and session:
            version = updated["properties"]["desired"]["$version"]
            payload = {**twin.properties(patch), "$version": version}
            self._deliver(
                session,
                DESIRED_CHANGES,
                f"$iothub/twin/PATCH/properties/desired/?$version={version}",
                json.dumps(payload, separators=(",", ":")).encode(),
            )
        return updated

    def _update_twin(
        self, identity: Identity, request: Json, if_match: str | None, replace: bool
    ) -> Json:
        with self._store.transaction():
            document: Json = self._store.twin(identity)
            check_etag(document["etag"], if_match)
            if (tags := request.get("tags")) is not None:
                document = twin.update_tags(document, tags, replace=replace)
            if (desired := _desired_of(request)) is not None:
                document = twin.update(document, "desired", desired, utc_now(), replace=replace)
            document = {**document, "etag": registry.new_etag()}
            self._store.set_twin(identity, document)
        return document

    async def send_to_device(
        self, identity: Identity, properties: bag.Bag, body: bytes, lifetime_s: float
    ) -> None:
        """Send a device a message, now or once it is there. Errors: RequestError."""
        self.record(identity)
        await self.cloud_to_device.send(identity, properties, body, lifetime_s)
        if session := self.sessions.of(identity):
            await self.cloud_to_device.flush(session)

    # --- events ---

    async def events(
        self, after: int, limit: int, device: str | None, since_ms: int
    ) -> list[tuple[int, Any]]:
        return await self.in_database(self._store.events, after, limit, device, since_ms)

    async def event_before_last(self, count: int, device: str | None) -> int:
        return await self.in_database(self._store.event_before_last, count, device)

    async def count_events(self) -> int:
        return await self.in_database(self._store.count_events)

    async def more_events(self, seen: int) -> None:
        """Wait until `batches` is no longer `seen`."""
        async with self._stored:
            await self._stored.wait_for(lambda: self.batches != seen)

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        value = self._store.setting(name)
        if value is None:
            value = make()
            self._store.set_setting(name, value)
        return str(value)


def _desired_of(request: Json) -> Json | None:
    properties = request.get("properties") or {}
    desired: Json | None = properties.get("desired")
    return desired


def check_etag(etag: str, if_match: str | None) -> None:
    """Errors: RequestError (412) where a request is for another version."""
    if if_match and if_match.strip('"') not in ("*", etag):
        raise RequestError(412, "the etag is not that of the current version")
