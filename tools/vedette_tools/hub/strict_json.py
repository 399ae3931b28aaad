"""JSON from outside: what Python's reader takes beyond the standard, or trips over, is refused."""

from __future__ import annotations

import json
import math
from typing import Any

DEPTH_MAX = 200  # far from where Python gives up, which is later or earlier by the caller's depth


def loads(text: bytes | str) -> Any:
    """The value of a JSON text in UTF-8. Errors: ValueError."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
        if text.count("[") + text.count("{") > DEPTH_MAX:  # or it cannot be so deep
            _check_depth(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _check_depth(value: Any) -> None:
    level: list[Any] = [[value]]
    for _ in range(DEPTH_MAX + 1):
        values = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for inner in values for each in inner if isinstance(each, dict | list)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value
