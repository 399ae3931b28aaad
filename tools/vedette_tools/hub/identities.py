"""What the service side does with identities and their twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vedette_tools.hub import registry, twin
from vedette_tools.hub.clock import utc_now
from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.fields import object_in
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.registry import Registry
from vedette_tools.hub.sessions import Session, Sessions

Json = dict[str, Any]

BULK_MAX = 100  # devices in one request

_SHOWN_WITH_TWIN = (
    "deviceId",
    "moduleId",
    "status",
    "statusUpdatedTime",
    "lastActivityTime",
    "connectionState",
    "cloudToDeviceMessageCount",
    "capabilities",
)


class Identities:
    def __init__(
        self,
        database: Database,
        known: Registry,
        sessions: Sessions,
        kick: Callable[[Session], None],
        push_desired: Callable[[Session, Json], None],
    ) -> None:
        """`kick` is to close a session, `push_desired` to tell it of a change."""
        self.registry = known
        self._database = database
        self._store = database.store
        self._sessions = sessions
        self._kick = kick
        self._push_desired = push_desired

    async def put(self, identity: Identity, request: Json, if_match: str | None) -> Json:
        """Create an identity, or update it where `if_match` fits. Errors: RequestError."""
        old = self.registry.get(identity)
        if identity.module and Identity(identity.device) not in self.registry:
            raise unknown(Identity(identity.device))
        if old is None and if_match:
            raise unknown(identity)
        if old is not None:
            if not if_match:
                raise RequestError(
                    409,
                    f"{identity.described} is there already",
                    "`vedette device show` prints it",
                )
            _check_etag(old["etag"], if_match)
        now = utc_now()
        record = registry.apply(old or registry.new_record(identity, now), request)
        self.registry[identity] = record
        document = {**twin.new(now), "etag": registry.new_etag()}
        await self._database.run(self._store.put_identity, identity, record, document)
        if record.get("status") == "disabled" and (session := self._sessions.of(identity)):
            self._kick(session)
        return record

    async def assign(self, identity: Identity, authentication: Json, initial_twin: Json) -> None:
        """Make sure that an identity is there, and has these keys; a new one also has that twin.

        Errors: RequestError.
        """
        known = identity in self.registry
        await self.put(identity, {"authentication": authentication}, "*" if known else None)
        if not known:
            await self.update_twin(identity, initial_twin, None, replace=False)

    async def delete(self, identity: Identity, if_match: str | None) -> None:
        """Errors: RequestError."""
        _check_etag(self.record(identity)["etag"], if_match)
        for other in list(self.registry):
            if other == identity or (not identity.module and other.device == identity.device):
                del self.registry[other]
                self._sessions.remembered.pop(other, None)
                if session := self._sessions.of(other):
                    self._kick(session)
        await self._database.run(self._store.delete_identity, identity)

    async def change_many(self, requests: Any) -> list[Json]:
        """Create, update or delete devices, as each request's `importMode` says; what was refused,
        in the service API's form. Errors: RequestError (400) where it is no list of them."""
        if not isinstance(requests, list) or not 0 < len(requests) <= BULK_MAX:
            raise RequestError(400, f"the body has to be a list of 1 to {BULK_MAX} devices")
        errors = []
        for request in requests:
            try:
                await self._change(request)
            except RequestError as error:
                device = request.get("id") if isinstance(request, dict) else None
                errors.append(
                    {"deviceId": device, "errorCode": error.code, "errorStatus": error.message}
                )
        return errors

    async def _change(self, request: Any) -> None:
        if not isinstance(request, dict):
            raise RequestError(400, "a device has to be a JSON object")
        identity = Identity.checked(request.get("id"), request.get("moduleId") or "")
        known = identity in self.registry
        if_match = "*"
        mode = str(request.get("importMode") or "createOrUpdate").lower()
        if mode.endswith("ifmatchetag"):
            if_match = str(request.get("eTag") or request.get("etag"))
            mode = mode.removesuffix("ifmatchetag")
        match mode:
            case "create":
                await self.put(identity, request, None)
            case "createorupdate":
                await self.put(identity, request, "*" if known else None)
            case "update":
                await self.put(identity, request, if_match)
            case "delete":
                await self.delete(identity, if_match)
            case _:
                raise RequestError(400, f"importMode {request['importMode']!r} is not there")
        twin_request = {key: request[key] for key in ("tags", "properties") if request.get(key)}
        if mode != "delete" and twin_request:
            await self.update_twin(identity, twin_request, None, replace=False)

    def record(self, identity: Identity) -> Json:
        """An identity's record as it is now. Errors: RequestError (404)."""
        record = self.registry.get(identity)
        if record is None:
            raise unknown(identity)
        connected = self._sessions.of(identity) is not None
        return {**record, "connectionState": "Connected" if connected else "Disconnected"}

    async def described(self, identity: Identity) -> Json:
        """A record with what has to be looked up. Errors: RequestError (404)."""
        record = self.record(identity)
        if not identity.module:
            record["cloudToDeviceMessageCount"] = await self._database.run(
                self._store.count_cloud_messages, identity.device
            )
        return record

    async def twin_document(self, identity: Identity, document: Json) -> Json:
        """A twin as the service API gives it: with what it shares with the identity's record.
        Errors: RequestError (404)."""
        record = await self.described(identity)
        authentication = record["authentication"]
        shown = {key: record[key] for key in _SHOWN_WITH_TWIN if key in record}
        return {
            **shown,
            "authenticationType": authentication["type"],
            "x509Thumbprint": authentication["x509Thumbprint"],
            "deviceEtag": record["etag"],
            **document,
        }

    async def twin(self, identity: Identity) -> Json:
        """Errors: RequestError (404)."""
        self.record(identity)
        document: Json = await self._database.run(self._store.twin, identity)
        return document

    async def update_twin(
        self, identity: Identity, request: Json, if_match: str | None, *, replace: bool
    ) -> Json:
        """Patch a twin's desired properties and tags, or replace them. Errors: RequestError."""
        self.record(identity)
        updated: Json = await self._database.run(
            self._update_twin, identity, request, if_match, replace
        )
        desired = _desired_of(request)
        session = self._sessions.of(identity)
        if desired is not None and session:
            version = updated["properties"]["desired"]["$version"]
            self._push_desired(session, {**twin.properties(desired), "$version": version})
        return updated

    def _update_twin(
        self, identity: Identity, request: Json, if_match: str | None, replace: bool
    ) -> Json:
        with self._store.transaction():
            document: Json = self._store.twin(identity)
            _check_etag(document["etag"], if_match)
            if (tags := request.get("tags")) is not None:
                document = twin.update_tags(document, tags, replace=replace)
            if (desired := _desired_of(request)) is not None:
                document = twin.update(document, "desired", desired, utc_now(), replace=replace)
            document = {**document, "etag": registry.new_etag()}
            self._store.set_twin(identity, document)
        return document


def unknown(identity: Identity) -> RequestError:
    return RequestError(
        404, f"there is no {identity.described}", "`vedette device list` shows those there are"
    )


def _desired_of(request: Json) -> Any:
    return object_in(request, "properties").get("desired")


def _check_etag(etag: str, if_match: str | None) -> None:
    """Errors: RequestError (412) where a request is for another version."""
    if if_match and if_match.strip('"') not in ("*", etag):
        raise RequestError(412, "the etag is not that of the current version")
