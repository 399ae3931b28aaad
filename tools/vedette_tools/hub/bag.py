"""Property bags: what stands at the end of a telemetry or cloud-to-device topic.

`k=v&k=v`, keys and values URL-encoded with %20 for a space; a key alone means null.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

Bag = dict[str, str | None]

# System properties that a reader of events gets under other names: those of AMQP, and an
# annotation of IoT Hub's. Source: Microsoft's "Create and read IoT Hub messages".
NAMES_OF_EVENTS = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.ifid": "iothub-interface-id",
}


def decode(bag: str) -> Bag:
    decoded: Bag = {}
    for part in bag.lstrip("?").split("&"):
        key, equals, value = part.partition("=")
        if key:
            decoded[unquote(key)] = unquote(value) if equals else None
    return decoded


def encode(bag: Bag) -> str:
    return "&".join(
        quote(key, safe="") + ("" if value is None else "=" + quote(value, safe=""))
        for key, value in bag.items()
    )


def split(bag: Bag) -> tuple[Bag, Bag]:
    """The sender's own properties, and the system's (those whose key begins with `$.`)."""
    own = {key: value for key, value in bag.items() if not key.startswith("$.")}
    system = {key: value for key, value in bag.items() if key.startswith("$.")}
    return own, system
