"""The identities, kept in memory for the answer to a CONNECT and written through to the store.

A record is what the REST API gives: see Microsoft's "Device identity properties".
"""

from __future__ import annotations

import secrets
from typing import Any

from vedette_tools.hub import sas
from vedette_tools.hub.device_certificates import checked_thumbprint
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.fields import object_in, string_in
from vedette_tools.hub.identity import Identity

Json = dict[str, Any]

SAS, SELF_SIGNED, CA_SIGNED = "sas", "selfSigned", "certificateAuthority"

_NEVER = "0001-01-01T00:00:00Z"


def new_record(identity: Identity, now: str) -> Json:
    record: Json = {
        "deviceId": identity.device,
        "generationId": str(secrets.randbelow(10**18)),
        "connectionStateUpdatedTime": _NEVER,
        "lastActivityTime": _NEVER,
        "cloudToDeviceMessageCount": 0,
    }
    if identity.module:
        record["moduleId"] = identity.module
        record["managedBy"] = ""
    else:
        record |= {
            "status": "enabled",
            "statusReason": "",
            "statusUpdatedTime": now,
            "capabilities": {"iotEdge": False},
        }
    return record


def apply(record: Json, request: Json) -> Json:
    """A record with what a PUT may set, and a new etag. Errors: RequestError (400)."""
    record = dict(record)
    status = request.get("status") or record.get("status", "enabled")
    if status not in ("enabled", "disabled"):
        raise RequestError(400, "status has to be enabled or disabled")
    given = {
        "statusReason": string_in(request, "statusReason"),
        "capabilities": object_in(request, "capabilities") or None,
        "managedBy": string_in(request, "managedBy"),
    }
    record |= {name: value for name, value in given.items() if value is not None}
    if "moduleId" not in record:
        record["status"] = status
    record["authentication"] = _authentication(
        object_in(request, "authentication") or object_in(record, "authentication")
    )
    record["etag"] = new_etag()
    return record


def _authentication(request: Json) -> Json:
    thumbprints = object_in(request, "x509Thumbprint")
    kind = request.get("type") or (SELF_SIGNED if any(thumbprints.values()) else SAS)
    if kind not in (SAS, SELF_SIGNED, CA_SIGNED):
        raise RequestError(
            400, f"authentication of type {kind!r} is not there: {SAS}, {SELF_SIGNED}, {CA_SIGNED}"
        )
    keys = object_in(request, "symmetricKey")
    return {
        "type": kind,
        "symmetricKey": {
            name: _key(string_in(keys, name), name) if kind == SAS else None
            for name in ("primaryKey", "secondaryKey")
        },
        "x509Thumbprint": {
            name: checked_thumbprint(thumbprints.get(name), name)
            if kind == SELF_SIGNED and (required or thumbprints.get(name))
            else None
            for name, required in (("primaryThumbprint", True), ("secondaryThumbprint", False))
        },
    }


def _key(key: str | None, name: str) -> str:
    """A key that was given, or a new one. Errors: RequestError (400)."""
    key = key or sas.new_key()
    try:
        length = len(sas.decode_key(key))
    except sas.SasError:
        raise RequestError(400, f"{name} is not base64") from None
    if not 16 <= length <= 64:
        raise RequestError(400, f"{name} is {length} bytes; 16 to 64 are allowed")
    return key


def new_etag() -> str:
    return secrets.token_urlsafe(6)


class Registry(dict[Identity, Json]):
    """Identity -> record."""

    def authentication_of(self, identity: Identity) -> Json | None:
        """How an identity proves itself; None where it is unknown or disabled."""
        record = self.get(identity)
        device = self.get(Identity(identity.device))
        if record is None or device is None or device["status"] != "enabled":
            return None
        authentication: Json = record["authentication"]
        return authentication

    def devices(self) -> list[Identity]:
        return [identity for identity in self if not identity.module]

    def modules_of(self, device: Identity) -> list[Identity]:
        return [each for each in self if each.device == device.device and each.module]
