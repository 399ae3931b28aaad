"""The service side over HTTPS: who may ask, and how errors are answered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from vedette_tools.hub import development_api, sas, service_api, websocket
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.hub import Hub
from vedette_tools.hub.rest import HUB

POLICY = "iothubowner"
BODY_MAX = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(hub: Hub) -> web.Application:
    app = web.Application(client_max_size=BODY_MAX, middlewares=[_answer_errors, _authorise])
    app[HUB] = hub
    app.add_routes(service_api.routes)
    app.add_routes(development_api.routes)
    app.add_routes(websocket.routes)
    return app


def check_token(text: str, owner_key: str) -> None:
    """Errors: RequestError (401) unless this is a token of the owner's policy for this hub."""
    try:
        token = sas.Token.parse(text)
        allowed = (
            token.policy == POLICY
            and token.expiry > time.time()
            and token.covers("")
            and token.signed_with(owner_key)
        )
    except sas.SasError as error:
        raise RequestError(401, str(error)) from None
    if not allowed:
        raise RequestError(401, f"the token is not one of {POLICY} for this hub, or it ran out")


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        body = {
            "Message": f"ErrorCode:{error.code};{error.message}",
            "ExceptionMessage": error.message,
        }
        if error.next_step:
            body["NextStep"] = error.next_step
        return web.json_response(body, status=error.status)


@web.middleware
async def _authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.match_info.handler is not websocket.relay:
        check_token(request.headers.get("Authorization", ""), request.app[HUB].owner_key)
    return await handler(request)
