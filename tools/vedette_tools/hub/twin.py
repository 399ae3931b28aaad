"""Device twins as pure functions: documents, merge-patch, versions, metadata, limits.

A twin is `{"tags": {}, "properties": {"desired": S, "reported": S}, "version": N}`; a section S is
the properties with `$version` and `$metadata` beside them. Limits and their meaning: Microsoft's
"Understand and use device twins in IoT Hub".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from vedette_tools.hub.errors import RequestError

Json = dict[str, Any]

SECTION_BYTES = 32 * 1024  # desired and reported, each; measured as compact JSON
TAGS_BYTES = 8 * 1024
DEPTH = 10
KEY_BYTES = 1024
STRING_BYTES = 4096
INTEGER_LIMIT = 1 << 52

_FORBIDDEN_IN_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f.$ ]")
_NOT_PROPERTIES = ("$version", "$metadata")


def new(now: str) -> Json:
    """A twin as it is when its device is created."""
    section = {"$metadata": {"$lastUpdated": now}, "$version": 1}
    return {
        "tags": {},
        "properties": {"desired": dict(section), "reported": dict(section)},
        "version": 1,
    }


def properties(section: Json) -> Json:
    """A section, or a patch, without what the hub itself keeps in it."""
    return {key: value for key, value in section.items() if key not in _NOT_PROPERTIES}


def for_device(twin: Json) -> Json:
    """What a device gets when it asks for its twin."""
    return {
        name: {**properties(section), "$version": section["$version"]}
        for name, section in twin["properties"].items()
    }


def merge(target: Json, patch: Json) -> Json:
    """JSON merge-patch (RFC 7396): null deletes. Returns a new object."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def update(twin: Json, name: str, patch: Json, now: str, *, replace: bool = False) -> Json:
    """A twin with one section ("desired" or "reported") patched, or replaced by `patch`.

    Errors: RequestError (400).
    """
    check(patch, name, SECTION_BYTES, merged=False)
    patch = properties(patch)
    old = twin["properties"][name]
    version = old["$version"] + 1
    values = merge({} if replace else properties(old), patch)
    check(values, name, SECTION_BYTES)
    stamp: Json = {"$lastUpdated": now}
    if name == "desired":
        stamp["$lastUpdatedVersion"] = version
    metadata = _stamped({} if replace else old["$metadata"], patch, values, stamp)
    section = {**values, "$metadata": metadata, "$version": version}
    return {
        **twin,
        "properties": {**twin["properties"], name: section},
        "version": twin["version"] + 1,
    }


def update_tags(twin: Json, patch: Json, *, replace: bool = False) -> Json:
    """Errors: RequestError (400)."""
    check(patch, "tags", TAGS_BYTES, merged=False)
    tags = merge({} if replace else twin["tags"], patch)
    check(tags, "tags", TAGS_BYTES)
    return {**twin, "tags": tags, "version": twin["version"] + 1}


def _stamped(metadata: Json, patch: Json, values: Json, stamp: Json) -> Json:
    """The metadata of `values`, with `stamp` on all that the patch touched."""
    stamped = {key: value for key, value in metadata.items() if key.startswith("$")}
    for key, value in values.items():
        below = metadata.get(key, {})
        if key in patch:
            touched = patch[key] if isinstance(patch[key], dict) else {}
            inner = value if isinstance(value, dict) else {}
            stamped[key] = _stamped(below, touched, inner, stamp)
        else:
            stamped[key] = below
    return {**stamped, **stamp}


def check(document: Any, name: str, size: int, *, merged: bool = True) -> None:
    """Refuse what breaks a limit; `name` is what the message calls it. A patch that is not
    `merged` yet may hold nulls, and what it deletes does not count towards the size.

    Errors: RequestError (400).
    """
    if not isinstance(document, dict):
        raise RequestError(400, f"{name} has to be a JSON object")
    _check_object(properties(document) if not merged else document, name, 1)
    if merged:
        length = len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
        if length > size:
            raise RequestError(400, f"{name} would be {length} bytes; {size} is the limit")


def _check_object(document: Json, path: str, depth: int) -> None:
    if depth > DEPTH:
        raise RequestError(400, f"{path} is deeper than {DEPTH} levels")
    for key, value in document.items():
        if not key or len(key.encode()) > KEY_BYTES:
            raise RequestError(400, f"a key in {path} is empty or over {KEY_BYTES} bytes")
        if _FORBIDDEN_IN_KEY.search(key):
            raise RequestError(400, f"the key {key!r} in {path} holds '.', '$', space or control")
        _check_value(value, f"{path}.{key}", depth)


def _check_value(value: Any, path: str, depth: int) -> None:
    checks: dict[type, Callable[[], None]] = {
        dict: lambda: _check_object(value, path, depth + 1),
        list: lambda: _check_list(value, path, depth + 1),
        str: lambda: _check_string(value, path),
        int: lambda: _check_integer(value, path),
    }
    checks.get(type(value), lambda: None)()


def _check_list(values: list[Any], path: str, depth: int) -> None:
    if depth > DEPTH:
        raise RequestError(400, f"{path} is deeper than {DEPTH} levels")
    for value in values:
        _check_value(value, path, depth)


def _check_string(value: str, path: str) -> None:
    if len(value.encode()) > STRING_BYTES:
        raise RequestError(400, f"{path} is a string over {STRING_BYTES} bytes")


def _check_integer(value: int, path: str) -> None:
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise RequestError(400, f"{path} is an integer outside -2^52 to 2^52-1")
