"""A device that asks the provisioning service (DPS) which hub is its own, and its key for that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from vedette_tools.connection import HubConnection, NoHub, NotFound, NotLocal, identity_path
from vedette_tools.errors import INVALID, CommandError
from vedette_tools.hub import sas

if TYPE_CHECKING:
    from vedette_tools.device_certificate import DeviceCertificate

KEY, GROUP_KEY = "VEDETTE_DPS_KEY", "VEDETTE_DPS_GROUP_KEY"

Json = dict[str, Any]


def enrol(hub: HubConnection, registration_id: str, device_id: str = "", **more: Any) -> Json:
    """Enrol a device by itself with the hub's provisioning service, with a new key unless `more`,
    which is of the service API's enrolment, says otherwise.

    Returns the device's `scope`, `host`, `registration_id` and `key` (where it has one), as its
    config.json has them. Errors: CommandError.
    """
    where = hub.request("GET", "/vedette/provisioning")
    path = f"/enrollments/{identity_path(registration_id, None)}"
    made = hub.request("PUT", path, {"deviceId": device_id, **more})
    keys = made["attestation"].get("symmetricKey")
    key = {"key": keys["primaryKey"]} if keys else {}
    return {**where, "registration_id": registration_id, **key}


def given(service: dict[str, str], device: str) -> Json | None:
    """What config.json has of a device whose key, or whose group's, the environment names.

    A group's key is for its owner: the board gets the one that is derived from it.
    Errors: CommandError.
    """
    for name in (KEY, GROUP_KEY):
        if key := os.environ.get(name):
            try:
                sas.decode_key(key)
            except sas.SasError as error:
                raise CommandError(f"{name} is no key", why=str(error)) from None
            key = sas.derive_key(key, device) if name == GROUP_KEY else key
            return {**service, "registration_id": device, "key": key}
    return None


def made(service: dict[str, str], device: str, settings: Json) -> Json:
    """The same of a device that is enrolled now, with its settings. Errors: CommandError."""
    hub = HubConnection.find()
    if not _is_of(hub, service):
        raise CommandError(
            f"{device} cannot be enrolled here",
            why=f"{hub.host} is not the local hub of the scope {service['scope']}",
            next_step=f"set {KEY} to its enrolment's key, or {GROUP_KEY} to that of its group",
        )
    return _made(hub, service, device, settings)


def by_certificate(
    service: dict[str, str], device: str, settings: Json, own: DeviceCertificate
) -> tuple[Json, bool]:
    """The same of a device with a certificate; and whether it was enrolled with its settings,
    which only the local hub is asked to do. Elsewhere its enrolment, or its group's, is its
    owner's. Errors: CommandError."""
    if own.name != device:
        raise CommandError(
            f"{device} cannot register with this certificate",
            why=f"it is for {own.name}",
            next_step="have one made with the device as its common name",
            code=INVALID,
        )
    try:
        hub = HubConnection.find()
        here = _is_of(hub, service)
    except NoHub:
        here = False
    if not here:
        return {**service, "registration_id": device}, False
    certificates = {"primary": {"certificate": own.pem}}
    attestation = {"type": "x509", "x509": {"clientCertificates": certificates}}
    return _made(hub, service, device, settings, attestation=attestation), True


def _is_of(hub: HubConnection, service: dict[str, str]) -> bool:
    """Whether that is the local hub's own provisioning service."""
    try:
        found = hub.request("GET", "/vedette/provisioning")
    except NotLocal:
        return False
    return bool(found["scope"] == service["scope"])


def _made(
    hub: HubConnection, service: dict[str, str], device: str, settings: Json, **more: Any
) -> Json:
    desired = {"properties": {"desired": {"microAgent": settings}}}
    found = enrol(hub, device, initialTwin=desired, **more)
    try:
        hub.request("PATCH", f"/twins/{identity_path(device, None)}", desired)
    except NotFound:
        pass  # it gets them with its first registration
    return {**found, **service}
