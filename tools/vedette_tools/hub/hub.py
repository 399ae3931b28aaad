"""The hub: makes the parts, and passes on what happens from one to the other."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from vedette_tools.hub import bag, cloud_to_device, metering, methods, sas
from vedette_tools.hub.broker import Broker, BrokerConfig, BrokerEvents
from vedette_tools.hub.cloud_to_device import CloudToDevice
from vedette_tools.hub.database import Database
from vedette_tools.hub.device_api import (
    TWIN_ANSWERS,
    DeviceApi,
    Effect,
    Kick,
    MethodResult,
    Reply,
)
from vedette_tools.hub.device_certificates import Authorities
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.events import Events
from vedette_tools.hub.faults import Faults
from vedette_tools.hub.feedback import Feedback
from vedette_tools.hub.identities import Identities
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.methods import Methods
from vedette_tools.hub.plugin_socket import ConnectRequest
from vedette_tools.hub.provisioning import Provisioning
from vedette_tools.hub.registry import Registry
from vedette_tools.hub.sessions import Session, Sessions
from vedette_tools.hub.spool import DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, Position, Record, Spool

log = logging.getLogger("vedette.hub")

SUBSCRIPTIONS_MAX = 5
DESIRED_CHANGES = "$iothub/twin/PATCH/properties/desired/#"

Json = dict[str, Any]


class Hub:
    """Lives on one event loop; the database has a thread of its own."""

    def __init__(
        self,
        state: Path,
        broker: BrokerConfig,
        *,
        device_host: str,
        provisioning_host: str,
        daily_quota: int | None,
    ) -> None:
        """`device_host` is what devices know the hub by, with its port unless that is 8883;
        `provisioning_host` the same of the provisioning service; `daily_quota` is in units, see
        metering.py."""
        self.provisioning_host = provisioning_host
        self.broker = Broker(
            broker,
            BrokerEvents(
                admit=self._admit,
                spooled=lambda: self._spooled.set(),
                will=lambda topic, payload: self._background(self._will(topic, payload)),
                acknowledged=lambda client: self._background(
                    self.cloud_to_device.acknowledged(client)
                ),
                died=self._all_gone,
            ),
        )
        self.database = Database(state / "hub.db")
        store = self.database.store
        self.owner_key: str = self.database.kept("owner_key", sas.new_key)
        registry = Registry(store.identities())
        self.authorities = Authorities(self.database)
        self.quota = metering.Quota(store, daily_quota)
        self.sessions = Sessions(
            registry,
            self.authorities,
            self._kick,
            self._forget_subscriptions,
            lambda: self.faults.active("quota") or self.quota.used_up(),
        )
        self.identities = Identities(
            self.database, registry, self.sessions, self._kick, self._push_desired
        )
        self.methods = Methods(self.sessions.of, self.broker.deliver)
        self.cloud_to_device = CloudToDevice(self.database, registry, self.broker.deliver)
        self.feedback = Feedback(self.database, self.cloud_to_device.expire)
        self.provisioning = Provisioning(
            scope=self.database.kept("dps_scope", lambda: "0ne" + secrets.token_hex(4).upper()),
            database=self.database,
            assigned_hub=device_host,
            assign=self.identities.assign,
            deliver=self.broker.deliver,
        )
        self.events = Events(self.database)
        self._spool = Spool(state / "spool")
        self.faults = Faults(self.broker, self.sessions, broker.listeners[0])
        self._devices = DeviceApi(
            store, self._spool, self.sessions.by_token, lambda: self.faults.active("throttle")
        )
        self._spooled = asyncio.Event()
        self._taking = asyncio.Lock()
        self._taker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Errors: HubStartError."""
        await self.take_in()  # what the last run left behind; its sessions are gone
        await self._check_quota()
        await self.database.run(self.sessions.remember, self.database.store.subscriptions)
        await self.broker.start(lambda: self._spool.next_number(self._devices.position))
        self._taker = asyncio.create_task(self._take_spooled())

    async def stop(self) -> None:
        await self.faults.end_all()
        await self.broker.stop()
        if self._taker:
            self._taker.cancel()
            await asyncio.wait([self._taker])
        await self.take_in()
        self.database.close()

    async def take_in(self) -> None:
        """Do all that the broker has acknowledged by now: what a device has subscribed to, say."""
        end = await self.database.run(self._spool.end)
        while await self._take(end):
            pass

    async def send_to_device(
        self, identity: Identity, properties: bag.Bag, body: bytes, lifetime_s: float
    ) -> None:
        """Send a device a message, now or once it is there. Errors: RequestError."""
        self.identities.record(identity)
        await self.cloud_to_device.send(identity, properties, body, lifetime_s)
        await self._check_quota()
        if session := self.sessions.of(identity):
            await self.cloud_to_device.flush(session)

    async def charge(self, *sizes: int) -> None:
        """Count exchanges of so many bytes each against the day's quota."""
        units = sum(map(metering.units, sizes))
        await self.database.run(self.database.store.meter, metering.today(), units)
        await self._check_quota()

    async def _check_quota(self) -> None:
        if await self.database.run(self.quota.check):
            log.warning("the day's quota of %s is used up", self.quota.limit)
            self.sessions.kick_all()

    def kick(self, identity: Identity) -> None:
        """Close an identity's connection. Errors: RequestError (404)."""
        session = self.sessions.of(identity)
        if session is None:
            raise RequestError(
                404,
                f"{identity} is not connected",
                "`vedette device list` shows those that are",
            )
        self._kick(session)

    # --- what comes from the broker ---

    def _admit(self, request: ConnectRequest) -> str | None:
        if self.provisioning.speaks(request):
            return self.provisioning.admit(request)
        session = self.sessions.admit(request)
        if session is None:
            return None
        self.cloud_to_device.begin(session)
        for topic_filter in session.subscriptions:
            self._subscribed(session, topic_filter)
        return session.name

    async def _take_spooled(self) -> None:
        while True:
            await self._spooled.wait()
            self._spooled.clear()
            while await self._take():
                pass

    async def _take(self, end: Position | None = None) -> bool:
        """Do the next of what devices have sent, unless all of it was done, or all before `end`;
        whether there was some."""
        async with self._taking:
            if end and self._devices.position >= end:
                return False
            effects = await self.database.run(self._devices.take)
            for effect in effects or ():
                self._perform(effect)
        if effects is None:
            return False
        await self.events.notify()
        await self._check_quota()
        return True

    def _perform(self, effect: Effect) -> None:
        session = self.sessions.by_token.get(effect.token)
        match effect:
            case Record() if effect.token in self.provisioning.sessions:
                self._background(self.provisioning.take(effect))
            case _ if session is None:
                pass  # it is gone meanwhile
            case Reply():
                self._deliver(session, TWIN_ANSWERS, effect.topic, effect.payload)
            case MethodResult():
                self.methods.answered(effect)
            case Kick():
                self._kick(session)
            case Record(kind=kind) if kind == SUBSCRIBE:
                session.subscriptions[effect.topic] = effect.qos
                if len(session.subscriptions) > SUBSCRIPTIONS_MAX:
                    log.warning(
                        "%s has over %s subscriptions", session.identity, SUBSCRIPTIONS_MAX
                    )
                    self._kick(session)
                self._subscribed(session, effect.topic)
            case Record(kind=kind) if kind == UNSUBSCRIBE:
                session.subscriptions.pop(effect.topic, None)
            case Record(kind=kind) if kind == DISCONNECT:
                self.sessions.close(effect.token)

    def _subscribed(self, session: Session, topic_filter: str) -> None:
        if topic_filter == methods.TOPIC_FILTER:
            self._background(self.methods.subscribed())
        elif topic_filter == cloud_to_device.topic_filter(session.identity):
            self._background(self.cloud_to_device.flush(session))

    async def _will(self, topic: str, payload: bytes) -> None:
        now_ms = int(time.time() * 1000)
        await self.database.run(self._devices.will, topic, payload, now_ms)
        await self.events.notify()

    def _all_gone(self) -> None:
        self.sessions.close_all()
        self.provisioning.sessions.clear()

    # --- what goes to it ---

    def _kick(self, session: Session) -> None:
        self.broker.kick(session.name)

    def _push_desired(self, session: Session, patch: Json) -> None:
        topic = f"$iothub/twin/PATCH/properties/desired/?$version={patch['$version']}"
        payload = json.dumps(patch, separators=(",", ":")).encode()
        self._deliver(session, DESIRED_CHANGES, topic, payload)

    def _deliver(self, session: Session, topic_filter: str, topic: str, payload: bytes) -> None:
        if topic_filter in session.subscriptions:
            self.broker.deliver(session.identity.client_id, topic, payload)

    def _forget_subscriptions(self, identity: Identity) -> None:
        self._background(self.database.run(self.database.store.delete_subscriptions, identity))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
