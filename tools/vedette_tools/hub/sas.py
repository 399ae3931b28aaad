"""Shared access signatures, as IoT Hub and its provisioning service use them.

A token is `SharedAccessSignature sr={enc}&sig={enc}&se={unix seconds}[&skn={policy}]` with
`sig = base64(HMAC-SHA256(base64-decoded key, sr + "\\n" + se))`, sr as it stands in the token.
Event Hubs has the same, but signs with the key's text as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

PREFIX = "SharedAccessSignature "


class SasError(ValueError):
    """Not a token, or not a key. The text never holds either."""


def new_key() -> str:
    """A key of 32 random bytes, in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def decode_key(key: str) -> bytes:
    """The bytes of a key. Errors: SasError."""
    try:
        return base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise SasError("the key is not base64") from None


def derive_key(group_key: str, registration_id: str) -> str:
    """The key of one device of an enrolment group."""
    return _sign(decode_key(group_key), registration_id)


def make(resource: str, key: str, lifetime: float = 3600, policy: str | None = None) -> str:
    """A token for a resource, valid for `lifetime` seconds from now."""
    encoded = quote(resource, safe="")
    expiry = str(int(time.time() + lifetime))
    signature = quote(_sign(decode_key(key), f"{encoded}\n{expiry}"), safe="")
    name = f"&skn={quote(policy, safe='')}" if policy else ""
    return f"{PREFIX}sr={encoded}&sig={signature}&se={expiry}{name}"


def _sign(key: bytes, text: str) -> str:
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


@dataclass(frozen=True)
class Token:
    """A token that was read, and not yet believed."""

    resource: str
    policy: str | None
    expiry: int
    signed: str = field(repr=False)
    signature: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Errors: SasError."""
        if not (text.startswith(PREFIX) and text.isascii()):
            raise SasError("not a shared access signature")
        fields = dict(part.split("=", 1) for part in text[len(PREFIX) :].split("&") if "=" in part)
        try:
            resource, signature, expiry = fields["sr"], fields["sig"], fields["se"]
        except KeyError as missing:
            raise SasError(f"the token has no {missing.args[0]}") from None
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) < 16):
            raise SasError("the token's expiry is not a number")
        policy = fields.get("skn")
        return cls(
            resource=unquote(resource),
            policy=unquote(policy) if policy else None,
            expiry=int(expiry),
            signed=f"{resource}\n{expiry}",
            signature=unquote(signature),
        )

    def signed_with(self, key: str) -> bool:
        return self._signed_with(decode_key(key))

    def signed_with_text_of(self, key: str) -> bool:
        """As Event Hubs signs."""
        return self._signed_with(key.encode())

    def _signed_with(self, key: bytes) -> bool:
        return hmac.compare_digest(_sign(key, self.signed).encode(), self.signature.encode())

    def covers(self, path: str) -> bool:
        """True when the token is for a hub (whichever name it goes by), or for what is at or above
        `path` in it: "devices/d/modules/m" is covered by "hub/devices/d"."""
        _, _, resource = self.resource.rstrip("/").partition("/")
        return resource == "" or path == resource or path.startswith(resource + "/")
