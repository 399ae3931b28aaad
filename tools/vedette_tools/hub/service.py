"""The service side over HTTPS: who may ask, and how errors are answered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from vedette_tools.hub import NAME, development_api, sas, service_api, websocket
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.hub import Hub
from vedette_tools.hub.rest import HUB

POLICY = "iothubowner"
HUB_ITSELF, EVENTS = "hub", "events"  # what a token opens
BODY_MAX = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(hub: Hub) -> web.Application:
    app = web.Application(client_max_size=BODY_MAX, middlewares=[_answer_errors, _authorise])
    app[HUB] = hub
    app.on_response_prepare.append(_sign)
    app.add_routes(service_api.routes)
    app.add_routes(development_api.routes)
    app.add_routes(websocket.routes)
    return app


def opened_by(text: str, owner_key: str) -> str:
    """HUB for a token of the owner's policy, EVENTS for one of Event Hubs' form, which is for the
    hub's events alone. Errors: RequestError (401)."""
    try:
        token = sas.Token.parse(text)
        if token.resource.startswith("sb://"):
            service, allowed = EVENTS, token.signed_with_text_of(owner_key)
        else:
            service, allowed = HUB_ITSELF, token.covers("") and token.signed_with(owner_key)
    except sas.SasError as error:
        raise RequestError(401, str(error)) from None
    if not (allowed and token.policy == POLICY and token.expiry > time.time()):
        raise RequestError(401, f"the token is not one of {POLICY} for this hub, or it ran out")
    return service


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
        token = request.headers.get("Authorization", "")
        if opened_by(token, request.app[HUB].owner_key) != HUB_ITSELF:
            raise RequestError(401, "the token is for the events alone")
    return await handler(request)


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = NAME
