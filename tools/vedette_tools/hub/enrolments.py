"""Enrolments of the provisioning service: who may register, as which device, by what proof.

An enrolment is for one registration id, or for a group. The proof is a key, which for a device of
a group is derived from the group's; or an X.509 certificate, which for a device of a group is
signed by the group's authority. Forms: Microsoft's "Device Provisioning Service REST API".
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from vedette_tools.hub import device_certificates, sas
from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import Refused, RequestError
from vedette_tools.hub.fields import object_in, string_in
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.plugin_socket import ConnectRequest

INDIVIDUAL, GROUP = "enrollments", "enrollmentGroups"  # as in the service API's paths
DEFAULT_GROUP = "default"
SETTING = "enrolments"
CERTIFICATE_MAX = 16 * 1024
REGISTRATION_ID = re.compile(r"[A-Za-z0-9\-.:_]{0,127}[A-Za-z0-9\-]")

_KEYS = ("primaryKey", "secondaryKey")
_CERTIFICATES = {INDIVIDUAL: "clientCertificates", GROUP: "signingCertificates"}

Json = dict[str, Any]


class Enrolments:
    """Kept as kind -> registration id, or group id -> {"deviceId", "enabled", "initialTwin"}, with
    "primaryKey" and "secondaryKey", or with "certificates" (PEM)."""

    def __init__(self, scope: str, database: Database) -> None:
        self._scope = scope
        self._database = database
        self._kept: dict[str, dict[str, Json]] = database.kept(
            SETTING, lambda: {INDIVIDUAL: {}, GROUP: {DEFAULT_GROUP: _read(GROUP, {})}}
        )

    async def put(self, kind: str, name: str, request: Json) -> Json:
        """Make an enrolment, or replace it. Errors: RequestError."""
        if kind == INDIVIDUAL and not REGISTRATION_ID.fullmatch(name):
            raise RequestError(
                400,
                f"{name!r} is no registration id: up to 128 of the letters, digits and -.:_; "
                "the last a letter, a digit or -",
            )
        self._kept[kind][name] = _read(kind, request)
        await self._save()
        return self.get(kind, name)

    def get(self, kind: str, name: str) -> Json:
        """An enrolment in the service API's form. Errors: RequestError."""
        try:
            return _shown(kind, name, self._kept[kind][name])
        except KeyError:
            what = "enrolment of" if kind == INDIVIDUAL else "enrolment group"
            raise RequestError(
                404, f"there is no {what} {name!r}", "`vedette device enrol` enrols a device"
            ) from None

    async def delete(self, kind: str, name: str) -> None:
        """Errors: RequestError."""
        self.get(kind, name)
        del self._kept[kind][name]
        await self._save()

    async def _save(self) -> None:
        await self._database.run(self._database.store.set_setting, SETTING, self._kept)

    def group_key(self, name: str) -> str | None:
        """The primary key of a group, or None where it has none, or was deleted."""
        return self._kept[GROUP].get(name, {}).get("primaryKey")

    def registered(self, registration_id: str, request: ConnectRequest) -> tuple[str, Json, Json]:
        """The device id that a registration leads to, how that device is to prove itself: as it
        has done here, and its initial twin. Errors: Refused, SasError."""
        if request.certificate and not request.password:
            return self._by_certificate(registration_id, request.certificate)
        return self._by_key(registration_id, request.password)

    def _by_key(self, registration_id: str, password: str) -> tuple[str, Json, Json]:
        token = sas.Token.parse(password)
        if token.resource != f"{self._scope}/registrations/{registration_id}":
            raise Refused(f"the token is for {token.resource!r}")
        if token.expiry <= time.time():
            raise Refused("the token ran out")
        for kind, enrolment in self._candidates(registration_id):
            keys = {name: enrolment[name] for name in _KEYS if name in enrolment}
            if kind == GROUP:
                keys = {name: sas.derive_key(key, registration_id) for name, key in keys.items()}
            if any([token.signed_with(key) for key in keys.values()]):
                return _led_to(registration_id, enrolment, {"symmetricKey": keys})
        raise Refused("no enrolment has this key")

    def _by_certificate(self, registration_id: str, der: bytes) -> tuple[str, Json, Json]:
        for kind, enrolment in self._candidates(registration_id):
            certificates = [_load(pem) for pem in enrolment.get("certificates", ())]
            try:
                if kind == GROUP:
                    device_certificates.check_signed(der, registration_id, certificates)
                elif der not in map(_der, certificates):
                    continue
            except Refused:
                continue
            thumbprint = {"primaryThumbprint": device_certificates.thumbprint(der)}
            return _led_to(registration_id, enrolment, {"x509Thumbprint": thumbprint})
        raise Refused("no enrolment has this certificate")

    def _candidates(self, registration_id: str) -> Iterator[tuple[str, Json]]:
        """The enrolments that may be meant, each with its kind: an individual one hides the
        groups."""
        individual = self._kept[INDIVIDUAL].get(registration_id)
        kind = INDIVIDUAL if individual else GROUP
        for enrolment in [individual] if individual else self._kept[GROUP].values():
            if enrolment["enabled"]:
                yield kind, enrolment


def _led_to(registration_id: str, enrolment: Json, proof: Json) -> tuple[str, Json, Json]:
    return enrolment["deviceId"] or registration_id, proof, enrolment.get("initialTwin") or {}


def _read(kind: str, request: Json) -> Json:
    """An enrolment of the service API's form. Errors: RequestError (400)."""
    device_id = request.get("deviceId") or ""
    if device_id:
        Identity.checked(device_id)
    enabled = (request.get("provisioningStatus") or "enabled") == "enabled"
    initial_twin = object_in(request, "initialTwin") or None
    attestation = object_in(request, "attestation")
    proof: Json
    match attestation.get("type", "symmetricKey"):
        case "symmetricKey":
            keys = object_in(attestation, "symmetricKey")
            proof = {name: _checked_key(name, string_in(keys, name)) for name in _KEYS}
        case "x509":
            given = object_in(object_in(attestation, "x509"), _CERTIFICATES[kind])
            certificates = [given[name] for name in ("primary", "secondary") if given.get(name)]
            if not certificates:
                raise RequestError(400, f"x509.{_CERTIFICATES[kind]}.primary is missing")
            proof = {"certificates": [_checked_certificate(each) for each in certificates]}
        case other:
            raise RequestError(400, f"attestation by {other!r} is not there: symmetricKey, x509")
    return {**proof, "deviceId": device_id, "enabled": enabled, "initialTwin": initial_twin}


def _checked_key(name: str, key: str | None) -> str:
    key = key or sas.new_key()
    try:
        sas.decode_key(key)
    except sas.SasError:
        raise RequestError(400, f"{name} is not base64") from None
    return key


def _checked_certificate(given: Any) -> str:
    """The PEM of `{"certificate": PEM, or base64 of DER}`."""
    text = given.get("certificate") if isinstance(given, dict) else None
    try:
        if not isinstance(text, str) or len(text) > CERTIFICATE_MAX:
            raise ValueError
        if "-----BEGIN" in text:
            certificate = _load(text)
        else:
            certificate = x509.load_der_x509_certificate(base64.b64decode(text))
    except (ValueError, x509.InvalidVersion):
        raise RequestError(
            400, "a certificate has to be X.509, in PEM, or in DER as base64"
        ) from None
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _load(pem: str) -> x509.Certificate:
    """Errors: ValueError."""
    return x509.load_pem_x509_certificate(pem.encode())


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _shown(kind: str, name: str, enrolment: Json) -> Json:
    """An enrolment in the service API's form."""
    attestation: Json
    if certificates := enrolment.get("certificates"):
        given = {
            place: {"certificate": pem}
            for place, pem in zip(("primary", "secondary"), certificates, strict=False)
        }
        attestation = {"type": "x509", "x509": {_CERTIFICATES[kind]: given}}
    else:
        keys = {name: enrolment[name] for name in _KEYS}
        attestation = {"type": "symmetricKey", "symmetricKey": keys}
    return {
        "registrationId" if kind == INDIVIDUAL else "enrollmentGroupId": name,
        "deviceId": enrolment["deviceId"],
        "attestation": attestation,
        "provisioningStatus": "enabled" if enrolment["enabled"] else "disabled",
        "initialTwin": enrolment.get("initialTwin"),
    }
