"""The Device Provisioning Service, as devices see it over MQTT, on the hub's own broker.

A device connects with its registration id as client id, registers, is told to ask again, and is
then assigned to this hub: its identity is made with the key that it registered with. Enrolments
are individual, or groups whose devices have keys derived from the group's. Protocol: Microsoft's
"Communicate with your DPS using the MQTT protocol".
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from vedette_tools.hub import sas, strict_json
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import Refused, RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.plugin_socket import ConnectRequest
from vedette_tools.hub.spool import DISCONNECT, PUBLISH, Record

log = logging.getLogger("vedette.hub.provisioning")

INDIVIDUAL, GROUP = "enrollments", "enrollmentGroups"  # as in the service API's paths
DEFAULT_GROUP = "default"
SETTING = "enrolments"
RETRY_AFTER_S = 1

_USERNAME = re.compile(r"([^/]+)/registrations/([^/]+)/api-version=\d{4}-\d\d-\d\d[^/]*")
_REGISTRATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-.:_]{0,126}[A-Za-z0-9]|[A-Za-z0-9]")
_REQUEST = re.compile(
    r"\$dps/registrations/(?:(?P<put>PUT/iotdps-register)|GET/iotdps-get-operationstatus)/\?(.*)"
)

Json = dict[str, Any]
Enrolments = dict[str, Json]
"""Registration id, or group id -> {"primaryKey", "secondaryKey", "deviceId", "enabled"}."""


@dataclass
class Registration:
    """A device's connection to the provisioning service."""

    id: str
    keys: tuple[str, str] = field(repr=False)
    device_id: str
    operation: str = ""


class Provisioning:
    def __init__(
        self,
        scope: str,
        database: Database,
        assigned_hub: str,
        assign: Callable[[Identity, Json], Awaitable[None]],
        deliver: Callable[[str, str, bytes], None],
    ) -> None:
        """`assign` is to make an identity with its keys, `deliver` to send a client (by its id) a
        message (topic, payload)."""
        self.scope = scope
        self.sessions: dict[str, Registration] = {}  # by token
        self.enrolments: dict[str, Enrolments] = database.kept(
            SETTING, lambda: {INDIVIDUAL: {}, GROUP: {DEFAULT_GROUP: from_request({})}}
        )
        self._database = database
        self._assigned_hub = assigned_hub
        self._assign = assign
        self._deliver = deliver

    async def put(self, kind: str, name: str, request: Json) -> Json:
        """Make an enrolment, or replace it. Errors: RequestError."""
        self.enrolments[kind][name] = from_request(request)
        await self._save()
        return self.get(kind, name)

    def group_key(self, name: str) -> str | None:
        """The primary key of a group, or None where it was deleted."""
        group = self.enrolments[GROUP].get(name)
        return group["primaryKey"] if group else None

    def get(self, kind: str, name: str) -> Json:
        """An enrolment in the service API's form. Errors: RequestError."""
        try:
            return shown(kind, name, self.enrolments[kind][name])
        except KeyError:
            what = "enrolment of" if kind == INDIVIDUAL else "enrolment group"
            raise RequestError(
                404, f"there is no {what} {name!r}: `vedette device enrol` enrols a device"
            ) from None

    async def delete(self, kind: str, name: str) -> None:
        """Errors: RequestError."""
        self.get(kind, name)
        del self.enrolments[kind][name]
        await self._save()

    async def _save(self) -> None:
        await self._database.run(self._database.store.set_setting, SETTING, self.enrolments)

    def speaks(self, request: ConnectRequest) -> bool:
        """True when a CONNECT is for the provisioning service, not for the hub."""
        return "/registrations/" in request.username

    def admit(self, request: ConnectRequest) -> str | None:
        """The name of a new session, or None to refuse."""
        try:
            registration = self._registration(request)
        except (Refused, sas.SasError) as reason:
            log.warning("registration of %s refused: %s", request.client_id, reason)
            return None
        token = "c" + secrets.token_hex(8)
        self.sessions[token] = registration
        return f"{token} $dps/registrations"

    async def take(self, record: Record) -> None:
        """What a device of this service published, or that it left."""
        registration = self.sessions.get(record.token)
        if registration is None:
            return
        if record.kind == DISCONNECT:
            del self.sessions[record.token]
        if record.kind != PUBLISH:
            return
        match = _REQUEST.fullmatch(record.topic)
        if match is None:
            log.warning("%s published on %r, which is no topic", registration.id, record.topic)
            return
        query = dict(part.partition("=")[::2] for part in match[2].split("&"))
        try:
            if match["put"]:
                status, answer = await self._register(registration, record.payload)
            else:
                status, answer = self._status(registration, query.get("operationId", ""))
        except RequestError as error:
            status = error.status
            answer = {"errorCode": status * 1000, "message": error.message, "trackingId": ""}
        retry = f"&retry-after={RETRY_AFTER_S}" if status == 202 else ""
        self._deliver(
            registration.id,
            f"$dps/registrations/res/{status}/?$rid={query.get('$rid', '')}{retry}",
            json.dumps(answer).encode(),
        )

    def _registration(self, request: ConnectRequest) -> Registration:
        """Errors: Refused, SasError."""
        match = _USERNAME.fullmatch(request.username)
        if match is None:
            raise Refused("the user name is not {scope}/registrations/{id}/api-version=2019-03-31")
        scope, registration_id = match.groups()
        if scope != self.scope:
            raise Refused("the id scope is not this one")
        if request.client_id != registration_id or not _REGISTRATION_ID.fullmatch(registration_id):
            raise Refused("the client id is not the registration id, or not a valid one")
        token = sas.Token.parse(request.password)
        if token.resource != f"{scope}/registrations/{registration_id}":
            raise Refused(f"the token is for {token.resource!r}")
        if token.expiry <= time.time():
            raise Refused("the token ran out")
        for keys, device_id in self._candidates(registration_id):
            if any([token.signed_with(key) for key in keys]):
                return Registration(registration_id, keys, device_id)
        raise Refused("no enrolment has this key")

    def _candidates(self, registration_id: str) -> list[tuple[tuple[str, str], str]]:
        """The keys that a registration may have, each pair with the device id it leads to."""
        if enrolment := self.enrolments[INDIVIDUAL].get(registration_id):
            if not enrolment["enabled"]:
                return []
            keys = (enrolment["primaryKey"], enrolment["secondaryKey"])
            return [(keys, enrolment["deviceId"] or registration_id)]
        return [
            (
                (
                    sas.derive_key(group["primaryKey"], registration_id),
                    sas.derive_key(group["secondaryKey"], registration_id),
                ),
                registration_id,
            )
            for group in self.enrolments[GROUP].values()
            if group["enabled"]
        ]

    async def _register(self, registration: Registration, payload: bytes) -> tuple[int, Json]:
        try:
            request = strict_json.loads(payload)
        except ValueError as error:
            raise RequestError(400, f"the body is not JSON: {error}") from None
        if not isinstance(request, dict) or request.get("registrationId") != registration.id:
            raise RequestError(400, "registrationId is not that of the connection")
        primary, secondary = registration.keys
        await self._assign(
            Identity.checked(registration.device_id),
            {"symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}},
        )
        registration.operation = f"4.{secrets.token_hex(8)}"
        log.info("%s is assigned", registration.device_id)
        return 202, {"operationId": registration.operation, "status": "assigning"}

    def _status(self, registration: Registration, operation: str) -> tuple[int, Json]:
        if not operation or operation != registration.operation:
            raise RequestError(404, "there is no such operation")
        now = utc_now()
        return 200, {
            "operationId": operation,
            "status": "assigned",
            "registrationState": {
                "registrationId": registration.id,
                "createdDateTimeUtc": now,
                "assignedHub": self._assigned_hub,
                "deviceId": registration.device_id,
                "status": "assigned",
                "substatus": "initialAssignment",
                "lastUpdatedDateTimeUtc": now,
                "etag": secrets.token_urlsafe(6),
            },
        }


def from_request(request: Json) -> Json:
    """An enrolment of the service API's form, with symmetric keys. Errors: RequestError (400)."""
    attestation = request.get("attestation") or {}
    if attestation.get("type", "symmetricKey") != "symmetricKey":
        raise RequestError(400, "attestation is there by symmetricKey only")
    keys = attestation.get("symmetricKey") or {}
    chosen = {name: keys.get(name) or sas.new_key() for name in ("primaryKey", "secondaryKey")}
    for name, key in chosen.items():
        try:
            sas.decode_key(key)
        except sas.SasError:
            raise RequestError(400, f"{name} is not base64") from None
    device_id = request.get("deviceId") or ""
    if device_id:
        Identity.checked(device_id)
    enabled = (request.get("provisioningStatus") or "enabled") == "enabled"
    return {**chosen, "deviceId": device_id, "enabled": enabled}


def shown(kind: str, name: str, enrolment: Json) -> Json:
    """An enrolment in the service API's form."""
    return {
        "registrationId" if kind == INDIVIDUAL else "enrollmentGroupId": name,
        "deviceId": enrolment["deviceId"],
        "attestation": {
            "type": "symmetricKey",
            "symmetricKey": {
                "primaryKey": enrolment["primaryKey"],
                "secondaryKey": enrolment["secondaryKey"],
            },
        },
        "provisioningStatus": "enabled" if enrolment["enabled"] else "disabled",
    }
