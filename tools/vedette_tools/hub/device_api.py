"""What devices publish, taken from the spool: telemetry, and requests on their twins.

`take` runs in the database thread: it does all that a batch asks for in one transaction, together
with the spool's position, and returns what is to happen once that is safe.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vedette_tools.hub import agent_schema, bag, metering, strict_json, twin
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.sessions import Session
from vedette_tools.hub.spool import (
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Position,
    Record,
    Spool,
)
from vedette_tools.hub.store import Event, Store

log = logging.getLogger("vedette.hub.device")

TWIN_ANSWERS = "$iothub/twin/res/#"

_TWIN_GET = re.compile(r"\$iothub/twin/GET/\?(.*)")
_TWIN_REPORT = re.compile(r"\$iothub/twin/PATCH/properties/reported/\?(.*)")
_METHOD_RESULT = re.compile(r"\$iothub/methods/res/(\d{1,9})/\?(.*)")


@dataclass(frozen=True)
class Reply:
    """A message for the one session that asked."""

    token: str
    topic: str
    payload: bytes = b""


@dataclass(frozen=True)
class MethodResult:
    token: str
    request_id: str
    status: int
    payload: bytes


@dataclass(frozen=True)
class Kick:
    """A session that has published where nothing may be published."""

    token: str


Effect = Reply | MethodResult | Kick | Record
"""A Record among the effects is a change of the session (subscribe, disconnect, ...), or for the
provisioning service."""


class DeviceApi:
    def __init__(
        self,
        store: Store,
        spool: Spool,
        sessions: dict[str, Session],
        throttled: Callable[[], bool],
    ) -> None:
        self._store = store
        self._spool = spool
        self._sessions = sessions
        self._throttled = throttled
        self._position = store.position()

    @property
    def position(self) -> Position:
        return self._position

    def take(self) -> list[Effect] | None:
        """The effects of the next batch of records, or None where there is none."""
        records, position = self._spool.read(self._position)
        if not records:
            return None
        effects: list[Effect] = []
        events: list[Event] = []
        with self._store.transaction():
            for record in records:
                if record.kind != PUBLISH or record.topic.startswith("$dps/"):
                    self._remember(record)
                    effects.append(record)
                elif record.topic.startswith("devices/"):
                    events.append(_event(record))
                else:
                    effects.append(self._request(record))
            self._add(events)
            self._store.set_position(position)
        if position.file != self._position.file:
            self._spool.forget(position)
        self._position = position
        return effects

    def will(self, topic: str, payload: bytes, time_ms: int) -> None:
        """A will is telemetry that says so."""
        device_path, _, properties = topic.partition("/messages/events")
        text = "&".join(filter(None, (properties.lstrip("/"), "iothub-MessageType=Will")))
        identity = Identity.from_path(device_path)
        with self._store.transaction():
            self._add([Event(*identity, time_ms, text, payload)])

    def _add(self, events: list[Event]) -> None:
        self._store.add_events(events)
        for day, units in metering.of_events(events).items():
            self._store.meter(day, units)

    def _remember(self, record: Record) -> None:
        if not record.persistent:
            return
        identity = Identity.from_path(record.path)
        if record.kind == SUBSCRIBE:
            self._store.set_subscription(identity, record.topic, record.qos)
        elif record.kind == UNSUBSCRIBE:
            self._store.delete_subscriptions(identity, record.topic)

    def _request(self, record: Record) -> Effect:
        if match := _TWIN_GET.fullmatch(record.topic):
            return self._answer(record, _request_id(match[1]), self._get_twin)
        if match := _TWIN_REPORT.fullmatch(record.topic):
            return self._answer(record, _request_id(match[1]), self._report)
        if match := _METHOD_RESULT.fullmatch(record.topic):
            return MethodResult(record.token, _request_id(match[2]), int(match[1]), record.payload)
        log.warning("%s published on %r, which is no topic", record.path, record.topic)
        return Kick(record.token)

    def _answer(self, record: Record, request_id: str, handle: Any) -> Reply:
        try:
            if self._throttled():
                raise RequestError(429, "too many requests: try again later")
            status, extra, payload = handle(record)
            units = metering.units(max(len(payload), len(record.payload)))
            self._store.meter(metering.day(record.time_ms), units)
        except RequestError as error:
            log.warning("%s: twin refused: %s", record.path, error.message)
            status, extra = error.status, ""
            payload = json.dumps({"errorCode": error.status, "message": error.message}).encode()
        return Reply(record.token, f"$iothub/twin/res/{status}/?$rid={request_id}{extra}", payload)

    def _get_twin(self, record: Record) -> tuple[int, str, bytes]:
        document = twin.for_device(self._twin(record))
        return 200, "", json.dumps(document, separators=(",", ":")).encode()

    def _report(self, record: Record) -> tuple[int, str, bytes]:
        session = self._sessions.get(record.token)
        if session and not session.has_api_version:
            raise RequestError(400, "the user name has no api-version")
        try:
            patch = strict_json.loads(record.payload)
        except ValueError as error:
            raise RequestError(400, f"the reported properties are not JSON: {error}") from None
        updated = twin.update(self._twin(record), "reported", patch, utc_now())
        self._store.set_twin(Identity.from_path(record.path), updated)
        version = updated["properties"]["reported"]["$version"]
        return 204, f"&$version={version}", b""

    def _twin(self, record: Record) -> Any:
        document = self._store.twin(Identity.from_path(record.path))
        if document is None:
            raise RequestError(404, "this identity was deleted")
        return document


def _request_id(query: str) -> str:
    return next((p[5:] for p in query.split("&") if p.startswith("$rid=")), "")


def _event(record: Record) -> Event:
    identity = Identity.from_path(record.path)
    text = record.topic[len(record.path) + len("/messages/events") :].strip("/")
    if record.retain:
        text = "&".join(filter(None, (text, "mqtt-retain=true")))
    error = None
    if bag.decode(text).get("$.ifid") == agent_schema.INTERFACE:
        error = agent_schema.error_of(record.payload)
        if error:
            log.warning("%s sent a message that breaks the schema: %s", identity, error)
    return Event(*identity, record.time_ms, text, record.payload, error)
