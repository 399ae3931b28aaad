"""Certificates for the tests: made anew each time, for localhost."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


@dataclasses.dataclass
class Authority:
    """A certificate authority that writes what it makes into `folder`."""

    folder: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        self._key = _new_key(self.name)
        self._certificate = self._sign(self.name, self._key, authority=True, days=(-1, 30))
        self._write(self.name, self._certificate, self._key)

    @property
    def der(self) -> Path:
        return self.folder / f"{self.name}.der"

    @property
    def pem(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, file: str, host: str = "localhost", days: tuple[int, int] = (-1, 30)) -> Path:
        """Writes FILE.pem and .der and .key and .key.der; the path of the first."""
        key = _new_key(file)
        return self._write(file, self._sign(host, key, authority=False, days=days), key)

    def _sign(
        self, name: str, key: rsa.RSAPrivateKey, authority: bool, days: tuple[int, int]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(authority, None), True)
        )
        if not authority:
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            builder = builder.add_extension(names, False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, file: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> Path:
        for suffix, encoding in (("pem", _PEM), ("der", _DER)):
            (self.folder / f"{file}.{suffix}").write_bytes(certificate.public_bytes(encoding))
        for suffix, encoding in (("key", _PEM), ("key.der", _DER)):
            (self.folder / f"{file}.{suffix}").write_bytes(
                key.private_bytes(
                    encoding,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                )
            )
        return self.folder / f"{file}.pem"


@functools.cache
def _new_key(_owner: str) -> rsa.RSAPrivateKey:
    """One for each owner: they take long to make."""
    return rsa.generate_private_key(65537, 2048)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
