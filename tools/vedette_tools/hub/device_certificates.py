"""X.509 certificates of devices. That a device has the private key, its TLS handshake has proven;
what is left is whether the certificate is the one that the registry names, or is signed by an
authority that the hub was told to trust.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from vedette_tools.hub.database import Database
from vedette_tools.hub.errors import Refused, RequestError

SETTING = "authorities"
PEM_MAX = 16 * 1024
NONE_SHOWN = "the device has shown no certificate"

_THUMBPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")

Json = dict[str, Any]


def checked_thumbprint(text: Any, name: str) -> str:
    """A thumbprint as the registry keeps it: hexadecimal, SHA-1 or SHA-256. Errors: RequestError
    (400)."""
    plain = text.replace(":", "").upper() if isinstance(text, str) else ""
    if not _THUMBPRINT.fullmatch(plain):
        raise RequestError(400, f"{name} has to be 40 (SHA-1) or 64 (SHA-256) hexadecimal digits")
    return plain


def thumbprint(der: bytes) -> str:
    """A certificate's thumbprint by SHA-256."""
    return hashlib.sha256(der).hexdigest().upper()


def check_thumbprint(der: bytes, thumbprints: Json) -> None:
    """Errors: Refused unless the certificate is one of those that the registry names."""
    if not der:
        raise Refused(NONE_SHOWN)
    of_it = {thumbprint(der), hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()}
    if not of_it & set(thumbprints.values()):
        raise Refused("the certificate is not the one of this device")


def check_signed(der: bytes, name: str, authorities: Iterable[x509.Certificate]) -> None:
    """Errors: Refused unless the certificate is for `name`, by an authority, and in force."""
    if not der:
        raise Refused(NONE_SHOWN)
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, x509.InvalidVersion):
        raise Refused("the device's certificate cannot be read") from None
    if [each.value for each in names] != [name]:
        raise Refused("the certificate's common name is not this device's id")
    if not any(_issued(certificate, authority) for authority in authorities):
        raise Refused("no authority that is trusted here has signed the certificate")
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused("the certificate has expired, or is not valid yet")


class Authorities:
    """Those whose devices, the ones registered so, are known by the name in their certificate."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, str] = database.kept(SETTING, dict)  # name -> PEM
        self._certificates = {name: _load_pem(pem) for name, pem in self._kept.items()}

    def names(self) -> list[str]:
        return sorted(self._kept)

    async def put(self, name: str, pem: Any) -> None:
        """Trust an authority. Errors: RequestError (400)."""
        if not isinstance(pem, str) or len(pem) > PEM_MAX:
            raise RequestError(400, f"certificate has to be PEM of up to {PEM_MAX} bytes")
        try:
            certificate = _load_pem(pem)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (ValueError, x509.InvalidVersion, x509.ExtensionNotFound):
            raise RequestError(400, "that is no certificate of an authority in PEM form") from None
        if not constraints.value.ca:
            raise RequestError(400, "the certificate is not that of an authority (CA:TRUE)")
        self._kept[name], self._certificates[name] = pem, certificate
        await self._save()

    async def delete(self, name: str) -> None:
        """Errors: RequestError (404)."""
        if self._kept.pop(name, None) is None:
            raise RequestError(404, f"there is no authority {name!r}: {', '.join(self.names())}")
        del self._certificates[name]
        await self._save()

    async def _save(self) -> None:
        await self._database.run(self._database.store.set_setting, SETTING, self._kept)

    def check(self, der: bytes, name: str) -> None:
        """Errors: Refused unless a certificate is for `name`, by one of them, and in force."""
        check_signed(der, name, self._certificates.values())


def _load_pem(pem: str) -> x509.Certificate:
    """Errors: ValueError."""
    return x509.load_pem_x509_certificate(pem.encode())


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
