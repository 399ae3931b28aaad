"""The hub's own certificate authority, and the certificate that its servers show.

RSA throughout, as the real service's chain is. The authority is made once and kept; the servers'
certificate is signed anew at each start, so that it never expires and names what is listened on.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette_tools.hub.files import write_private

ALWAYS = ("localhost", "127.0.0.1", "127.0.0.2", "::1")
_DAY = datetime.timedelta(days=1)


class Certificates:
    """The files of a state directory: `ca.pem` for clients, `server.pem` and `server.key`."""

    def __init__(self, directory: Path) -> None:
        self.ca = directory / "ca.pem"
        self.server = directory / "server.pem"
        self.server_key = directory / "server.key"
        self._ca_key = directory / "ca.key"

    def prepare(self, *names: str) -> None:
        """Make what is missing, and a server certificate for localhost and `names`."""
        ca_key = _key(self._ca_key)
        server_key = _key(self.server_key)
        subject = _name("Vedette local hub CA")
        if not self.ca.exists():
            builder = _builder(subject, subject, ca_key.public_key(), days=3650)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
            builder = builder.add_extension(_ca_usage(), True)
            self.ca.write_bytes(_pem(builder.sign(ca_key, hashes.SHA256())))
        builder = _builder(_name("localhost"), subject, server_key.public_key(), days=365)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in dict.fromkeys(ALWAYS + names)]),
            False,
        )
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        self.server.write_bytes(_pem(builder.sign(ca_key, hashes.SHA256())))


def _key(path: Path) -> rsa.RSAPrivateKey:
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem)
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
