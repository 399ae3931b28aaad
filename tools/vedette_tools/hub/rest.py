"""What the handlers of the service API share: how they read a request."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from vedette_tools.hub import strict_json
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.hub import Hub
from vedette_tools.hub.identity import Identity

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)

Json = dict[str, Any]


def identity_of(request: web.Request) -> Identity:
    """Errors: RequestError (400)."""
    return Identity.checked(request.match_info["device"], request.match_info.get("module", ""))


async def json_of(request: web.Request) -> Any:
    """Errors: RequestError (400)."""
    try:
        return strict_json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None


async def body_of(request: web.Request) -> Json:
    """Errors: RequestError (400)."""
    body = await json_of(request)
    if not isinstance(body, dict):
        raise RequestError(400, "the body has to be a JSON object")
    return body


def number(name: str, text: str) -> int:
    """Errors: RequestError (400)."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestError(400, f"{name} has to be a number, not {text!r}")
    return int(text)


def number_of(request: web.Request, name: str, default: int = 0) -> int:
    """A number of the query. Errors: RequestError (400)."""
    return number(name, request.query.get(name, str(default)))
