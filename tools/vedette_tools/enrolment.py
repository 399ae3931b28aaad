"""A device that asks the provisioning service (DPS) which hub is its own, and its key for that."""

from __future__ import annotations

import os
from typing import Any

from vedette_tools.connection import HubConnection, NotFound, NotLocal, identity_path
from vedette_tools.errors import CommandError
from vedette_tools.hub import sas

KEY, GROUP_KEY = "VEDETTE_DPS_KEY", "VEDETTE_DPS_GROUP_KEY"

Json = dict[str, Any]


def enrol(hub: HubConnection, registration_id: str, device_id: str = "", **more: Any) -> Json:
    """Enrol a device by itself with the hub's provisioning service, with a new key.

    `more` is of the service API's enrolment. Returns the device's `scope`, `host`,
    `registration_id` and `key`, as its config.json has them. Errors: CommandError.
    """
    where = hub.request("GET", "/vedette/provisioning")
    path = f"/enrollments/{identity_path(registration_id, None)}"
    made = hub.request("PUT", path, {"deviceId": device_id, **more})
    key = made["attestation"]["symmetricKey"]["primaryKey"]
    return {**where, "registration_id": registration_id, "key": key}


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
    try:
        scope = hub.request("GET", "/vedette/provisioning")["scope"]
    except NotLocal:
        scope = None
    if scope != service["scope"]:
        raise CommandError(
            f"{device} cannot be enrolled here",
            why=f"{hub.host} is not the local hub of the scope {service['scope']}",
            next_step=f"set {KEY} to its enrolment's key, or {GROUP_KEY} to that of its group",
        )
    desired = {"properties": {"desired": {"microAgent": settings}}}
    found = enrol(hub, device, initialTwin=desired)
    try:
        hub.request("PATCH", f"/twins/{identity_path(device, None)}", desired)
    except NotFound:
        pass  # it gets them with its first registration
    return {**found, **service}
