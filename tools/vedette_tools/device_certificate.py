"""A device's X.509 certificate and private key: from files to what a board takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from vedette_tools.board_link import NVS_MAX
from vedette_tools.errors import INVALID, CommandError, reason


@dataclass(frozen=True)
class DeviceCertificate:
    """Both in the DER form that every MicroPython port takes: the key in PKCS#1, or SEC1."""

    certificate: bytes
    key: bytes = field(repr=False)
    name: str  # its common name

    @property
    def thumbprint(self) -> str:
        """By which a hub knows it: SHA-256, hex."""
        return hashlib.sha256(self.certificate).hexdigest().upper()

    def is_known(self, authentication: dict[str, Any]) -> bool:
        return is_known(self.certificate, authentication)

    @property
    def pem(self) -> str:
        loaded = x509.load_der_x509_certificate(self.certificate)
        return loaded.public_bytes(Encoding.PEM).decode()


def is_known(certificate: bytes, authentication: dict[str, Any]) -> bool:
    """Whether a device's record at the hub is of this certificate (DER), as far as it tells."""
    if authentication["type"] != "selfSigned":
        return True
    prints = {hashlib.sha256(certificate).hexdigest(), hashlib.sha1(certificate).hexdigest()}
    known = (authentication.get("x509Thumbprint") or {}).values()
    return any(each and each.lower() in prints for each in known)


def load(certificate: Path, key: Path) -> DeviceCertificate:
    """From files in PEM or DER form. Errors: CommandError."""
    shown = _certificate(certificate)
    private = _private(key)
    if _public(shown) != _public(private):
        raise CommandError(
            f"{key} is not the key of {certificate}",
            next_step="give the key that it was made with",
            code=INVALID,
        )
    if shown.not_valid_after_utc < datetime.now(UTC):
        raise CommandError(
            f"{certificate} ended on {shown.not_valid_after_utc:%Y-%m-%d}",
            next_step="have another made",
            code=INVALID,
        )
    der = private.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    if len(der) > NVS_MAX:
        raise CommandError(
            f"{key} is too long for a board",
            why=f"{len(der)} bytes of {NVS_MAX}",
            next_step="take one of the curve P-256, or RSA of 2048 bits",
            code=INVALID,
        )
    names = shown.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return DeviceCertificate(
        shown.public_bytes(Encoding.DER), der, str(names[0].value) if names else ""
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}", why=reason(error), code=INVALID) from None


def _certificate(path: Path) -> x509.Certificate:
    data = _read(path)
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError:
        raise CommandError(
            f"{path} is not an X.509 certificate in PEM or DER form", code=INVALID
        ) from None


def _private(path: Path) -> Any:
    data = _read(path)
    why, next_step = "it is not in PEM or DER form", ""
    try:
        load_key = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
        private = load_key(data, None)
        if isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            return private
        why, next_step = "it is neither RSA nor of an elliptic curve", "make one with P-256"
    except TypeError:
        why = "it is encrypted"
        next_step = "decrypt it, for this command: `openssl pkey -in KEY -out OTHER`"
    except ValueError:
        pass
    raise CommandError(
        f"{path} is no private key that a board takes", why=why, next_step=next_step, code=INVALID
    )


def _public(holder: Any) -> bytes:
    public: bytes = holder.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return public
