"""Values in the document of a request: one of another type than it has to be is refused."""

from __future__ import annotations

from typing import Any

from vedette_tools.hub.errors import RequestError


def object_in(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The object of that name; an empty one where there is none. Errors: RequestError (400)."""
    value: dict[str, Any] = _typed(document, name, dict, "a JSON object")
    return {} if value is None else value


def string_in(document: dict[str, Any], name: str) -> str | None:
    """The string of that name; None where there is none. Errors: RequestError (400)."""
    value: str | None = _typed(document, name, str, "a string")
    return value


def _typed(document: dict[str, Any], name: str, kind: type, described: str) -> Any:
    value = document.get(name)
    if value is not None and not isinstance(value, kind):
        raise RequestError(400, f"{name} has to be {described}")
    return value
