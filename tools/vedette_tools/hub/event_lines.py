"""Events as `vedette hub events` prints them: one JSON object a line."""

from __future__ import annotations

import base64
import json

from vedette_tools.hub import bag, strict_json
from vedette_tools.hub.clock import utc
from vedette_tools.hub.store import Event


def line(number: int, event: Event) -> str:
    own, system = bag.split(bag.decode(event.bag))
    encoding, body = _body(event.body)
    head = {
        "id": number,
        "deviceId": event.device,
        "moduleId": event.module or None,
        "enqueuedTimeUtc": utc(event.time_ms),
        "properties": own,
        "systemProperties": system,
        **({"schemaError": event.schema_error} if event.schema_error else {}),
        **({"bodyEncoding": encoding} if encoding else {}),
    }
    return f'{json.dumps(head)[:-1]}, "body": {body}}}'


def _body(body: bytes) -> tuple[str | None, str]:
    """The encoding, where there is one, and the body as JSON: what is JSON already stays as it is,
    other text becomes a string, and the rest a string in base64."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "base64", json.dumps(base64.b64encode(body).decode())
    try:
        value = strict_json.loads(text)
        if "\n" not in text and "\r" not in text:
            return None, text
        return None, json.dumps(value)
    except (ValueError, RecursionError):
        return None, json.dumps(text)
