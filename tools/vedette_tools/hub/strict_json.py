"""JSON from outside: what Python's reader takes beyond the standard, or trips over, is refused."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(text: bytes | str) -> Any:
    """The value of a JSON text in UTF-8. Errors: ValueError."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value
