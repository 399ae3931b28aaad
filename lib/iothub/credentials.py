"""Who the device is at its hub, and the token that proves it.

Source: https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas
"""

import binascii
import hashlib

from micropython import const

from . import bag, clock
from .errors import HubError

_MAX_TEXT = const(1024)
_BLOCK = const(64)  # bytes, of SHA-256
_API = "/?api-version=2021-04-12"
_FIELDS = ("HostName", "DeviceId", "ModuleId", "SharedAccessKey")


def hmac_sha256(key, message):
    """The 32 bytes of RFC 2104's HMAC with SHA-256."""
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    key = key + bytes(_BLOCK - len(key))
    inner = hashlib.sha256(bytes([b ^ 0x36 for b in key]) + message).digest()
    return hashlib.sha256(bytes([b ^ 0x5C for b in key]) + inner).digest()


def decode_key(text):
    """The bytes of a base64 key. HubError "credentials" when it is not one."""
    try:
        key = binascii.a2b_base64(text)
    except ValueError:
        key = b""
    if not key or binascii.b2a_base64(key)[:-1].decode() != text:
        raise HubError("credentials", "SharedAccessKey is not base64: copy it again, whole")
    return key


def split_host(text):
    """Name and port of "HOST[:PORT]". HubError "credentials" when the port is none."""
    host, colon, port = text.partition(":")
    if colon and not (port.isdigit() and 0 < int(port) < 65536):
        raise HubError("credentials", "the port in HostName is not a number from 1 to 65535")
    return host, int(port or 8883)


def sas(resource, key, expiry, policy=None):
    """A shared access signature for `resource`, valid until `expiry` (Unix seconds)."""
    resource = bag.quote(resource)
    signature = hmac_sha256(key, b"%s\n%d" % (resource.encode(), expiry))
    signature = bag.quote(binascii.b2a_base64(signature)[:-1].decode())
    token = "SharedAccessSignature sr=%s&sig=%s&se=%d" % (resource, signature, expiry)
    return token + "&skn=" + policy if policy else token


class Credentials:
    """A device, or one of its modules, with its symmetric key (the bytes, not the base64).

    Or with `certificate`: a pair, the X.509 certificate and its private key, both in DER form
    (bytes, or paths); `key` is None then.
    """

    def __init__(self, host, device_id, key, module_id=None, port=8883, certificate=None):
        self.host = host
        self.port = port
        self.certificate = certificate
        self._key = key
        name = bag.quote(device_id)
        self.client_id = device_id
        self.path = "devices/" + name  # of the identity, in topics and in the token's resource
        if module_id:
            self.client_id += "/" + module_id
            self.path += "/modules/" + bag.quote(module_id)
        self.user = host + "/" + self.client_id + _API

    @classmethod
    def parse(cls, text):
        """Credentials of "HostName=H[:PORT];DeviceId=D;[ModuleId=M;]SharedAccessKey=K".

        HubError "credentials" says what is wrong, without a value: values may be secret.
        """
        if len(text) > _MAX_TEXT:
            raise HubError("credentials", "the connection string is over %d bytes" % _MAX_TEXT)
        given = {}
        for part in text.strip().split(";"):
            name, _, value = part.partition("=")
            if part and name not in _FIELDS:
                raise HubError(
                    "credentials",
                    "the connection string has a part other than " + ", ".join(_FIELDS),
                )
            given[name] = value
        for name in ("HostName", "DeviceId", "SharedAccessKey"):
            if not given.get(name):
                raise HubError("credentials", "the connection string has no " + name)
        host, port = split_host(given["HostName"])
        key = decode_key(given["SharedAccessKey"])
        return cls(host, given["DeviceId"], key, given.get("ModuleId"), port)

    def password(self, lifetime):
        """A token that is valid for `lifetime` seconds from now; None with a certificate."""
        if self.certificate:
            return None
        return sas(self.host + "/" + bag.unquote(self.path), self._key, clock.unix() + lifetime)
