"""Connection strings, keys and tokens. Loaded when one is read or made.

Source: https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas
"""

import binascii
import hashlib

from micropython import const

from . import clock
from .encoding import quote
from .errors import HubError

_MAX_TEXT = const(1024)
_BLOCK = const(64)  # bytes, of SHA-256


def hmac_sha256(key, message):
    """The 32 bytes of RFC 2104's HMAC with SHA-256."""
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    for flip in (0x36, 0x5C):
        pad = bytearray(bytes((flip,)) * _BLOCK)
        for i, byte in enumerate(key):
            pad[i] ^= byte
        message = hashlib.sha256(pad + message).digest()
    return message


def decode_key(text):
    """The bytes of a base64 key. HubError "credentials" when it is not one."""
    try:
        key = binascii.a2b_base64(text)
    except ValueError:
        key = b""
    if not key or binascii.b2a_base64(key)[:-1].decode() != text:
        raise HubError("credentials", "SharedAccessKey is not base64")
    return key


def split_host(text):
    """Name and port of "HOST[:PORT]". HubError "credentials" when the port is none."""
    host, colon, port = text.partition(":")
    if colon and not (port.isdigit() and 0 < int(port) < 65536):
        raise HubError("credentials", "the port in HostName is not a number from 1 to 65535")
    return host, int(port or 8883)


def token(identity, lifetime):
    """The password of Credentials or Provisioning: a shared access signature for so many seconds.

    None with a certificate.
    """
    if identity.certificate:
        return None
    resource = quote(identity.resource)
    expiry = clock.unix() + lifetime
    signature = hmac_sha256(identity.key, b"%s\n%d" % (resource.encode(), expiry))
    signature = quote(binascii.b2a_base64(signature)[:-1].decode())
    text = "SharedAccessSignature sr=%s&sig=%s&se=%d" % (resource, signature, expiry)
    return text + "&skn=" + identity.policy if identity.policy else text


def parse(text, certificate):
    """The arguments for Credentials of a connection string."""
    if len(text) > _MAX_TEXT:
        raise HubError("credentials", "the connection string is over %d bytes" % _MAX_TEXT)
    names = ("HostName", "DeviceId", "x509" if certificate else "SharedAccessKey", "ModuleId")
    given = {"ModuleId": None}
    for part in text.strip().split(";"):
        name, _, value = part.partition("=")
        if part and name not in names:
            raise HubError("credentials", "known parts are " + ", ".join(names))
        given[name] = value
    for name in names[:3]:
        if not given.get(name):
            raise HubError("credentials", "no " + name)
    host, port = split_host(given["HostName"])
    key = None if certificate else decode_key(given["SharedAccessKey"])
    return host, given["DeviceId"], key, given["ModuleId"], port, certificate
