"""The Device Provisioning Service, as devices see it over MQTT, on the hub's own broker.

A device connects with its registration id as client id, registers, is told to ask again, and is
then assigned to this hub: its identity is made with the key, or the certificate, that it has
registered with. Protocol: Microsoft's "Communicate with your DPS using the MQTT protocol".
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from vedette_tools.hub import sas, strict_json
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.database import Database
from vedette_tools.hub.enrolments import REGISTRATION_ID, Enrolments
from vedette_tools.hub.errors import Refused, RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.plugin_socket import ConnectRequest
from vedette_tools.hub.spool import DISCONNECT, PUBLISH, Record

log = logging.getLogger("vedette.hub.provisioning")

RETRY_AFTER_S = 1

_USERNAME = re.compile(r"([^/]+)/registrations/([^/]+)/api-version=\d{4}-\d\d-\d\d[^/]*")
_REQUEST = re.compile(
    r"\$dps/registrations/(?:(?P<put>PUT/iotdps-register)|GET/iotdps-get-operationstatus)/\?(.*)"
)

Json = dict[str, Any]


@dataclass
class Registration:
    """A device's connection to the provisioning service."""

    id: str
    device_id: str
    authentication: Json = field(repr=False)  # of the device's identity
    initial_twin: Json
    operation: str = ""


class Provisioning:
    def __init__(
        self,
        scope: str,
        database: Database,
        assigned_hub: str,
        assign: Callable[[Identity, Json, Json], Awaitable[None]],
        deliver: Callable[[str, str, bytes], None],
    ) -> None:
        """`assign` is to make an identity with its authentication and initial twin, `deliver` to
        send a client (by its id) a message (topic, payload)."""
        self.scope = scope
        self.sessions: dict[str, Registration] = {}  # by token
        self.enrolments = Enrolments(scope, database)
        self._assigned_hub = assigned_hub
        self._assign = assign
        self._deliver = deliver

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
        if request.client_id != registration_id or not REGISTRATION_ID.fullmatch(registration_id):
            raise Refused("the client id is not the registration id, or not a valid one")
        return Registration(registration_id, *self.enrolments.registered(registration_id, request))

    async def _register(self, registration: Registration, payload: bytes) -> tuple[int, Json]:
        try:
            request = strict_json.loads(payload)
        except ValueError as error:
            raise RequestError(400, f"the body is not JSON: {error}") from None
        if not isinstance(request, dict) or request.get("registrationId") != registration.id:
            raise RequestError(400, "registrationId is not that of the connection")
        await self._assign(
            Identity.checked(registration.device_id),
            registration.authentication,
            registration.initial_twin,
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
