"""The service side: the REST API of IoT Hub as far as Microsoft's service SDKs use it, and below
`/vedette/` what the hub adds for development.

Paths and bodies: Microsoft's "IoT Hub REST API reference". The api-version is not looked at.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from vedette_tools.hub import cloud_to_device, event_lines, sas, strict_json
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.hub import Hub
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.provisioning import GROUP, INDIVIDUAL

POLICY = "iothubowner"
BODY_MAX = 1 << 20

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ERROR_CODES = {
    400: "ArgumentInvalid",
    401: "IotHubUnauthorizedAccess",
    404: "DeviceNotFound",
    409: "DeviceAlreadyExists",
    403: "DeviceMaximumQueueDepthExceeded",
    412: "PreconditionFailed",
    413: "MessageTooLarge",
    429: "ThrottlingException",
    504: "GatewayTimeout",
}


def application(hub: Hub) -> web.Application:
    app = web.Application(client_max_size=BODY_MAX, middlewares=[_answer_errors, _authorise])
    app[HUB] = hub
    app.add_routes(
        [
            web.get("/devices", list_devices),
            web.get("/twins/{device}", get_twin),
            web.patch("/twins/{device}", update_twin),
            web.put("/twins/{device}", update_twin),
            web.get("/twins/{device}/modules/{module}", get_twin),
            web.patch("/twins/{device}/modules/{module}", update_twin),
            web.put("/twins/{device}/modules/{module}", update_twin),
            web.get("/devices/{device}", get_identity),
            web.put("/devices/{device}", put_identity),
            web.delete("/devices/{device}", delete_identity),
            web.get("/devices/{device}/modules", list_modules),
            web.get("/devices/{device}/modules/{module}", get_identity),
            web.put("/devices/{device}/modules/{module}", put_identity),
            web.delete("/devices/{device}/modules/{module}", delete_identity),
            web.post("/twins/{device}/methods", invoke_method),
            web.post("/twins/{device}/modules/{module}/methods", invoke_method),
            web.post("/vedette/messages/{device}", send_to_device),
            web.delete("/devices/{device}/commands", purge_messages),
            *(
                route
                for kind in (INDIVIDUAL, GROUP)
                for route in (
                    web.get(f"/{{kind:{kind}}}/{{name}}", get_enrolment),
                    web.put(f"/{{kind:{kind}}}/{{name}}", put_enrolment),
                    web.delete(f"/{{kind:{kind}}}/{{name}}", delete_enrolment),
                )
            ),
            web.get("/vedette/events", events),
            web.put("/vedette/faults/{kind}", begin_fault),
            web.delete("/vedette/faults/{kind}", end_fault),
            web.delete("/vedette/faults", end_all_faults),
            web.get("/vedette/count", count),
            web.get("/vedette/provisioning", provisioning),
            web.get("/vedette/identities", list_identities),
            web.get("/vedette/processes", processes),
            web.post("/vedette/kick/{device}", kick),
            web.post("/vedette/kick/{device}/modules/{module}", kick),
        ]
    )
    return app


HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)


# --- what holds for all requests ---


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        code = _ERROR_CODES.get(error.status, "ServerError")
        return web.json_response(
            {"Message": f"ErrorCode:{code};{error.message}", "ExceptionMessage": error.message},
            status=error.status,
        )


@web.middleware
async def _authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        token = sas.Token.parse(request.headers.get("Authorization", ""))
        allowed = (
            token.policy == POLICY
            and token.expiry > time.time()
            and token.covers("")
            and token.signed_with(request.app[HUB].owner_key)
        )
    except sas.SasError as error:
        raise RequestError(401, str(error)) from None
    if not allowed:
        raise RequestError(401, f"the token is not one of {POLICY} for this hub, or it ran out")
    return await handler(request)


def _identity(request: web.Request) -> Identity:
    return Identity.checked(request.match_info["device"], request.match_info.get("module", ""))


async def _body(request: web.Request) -> Json:
    try:
        body = strict_json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError(400, "the body has to be a JSON object")
    return body


def _number(request: web.Request, name: str, default: int = 0) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise RequestError(400, f"{name} has to be a number, not {text!r}")
    return int(text)


# --- identities ---


async def list_devices(request: web.Request) -> web.Response:
    identities = request.app[HUB].identities
    devices = identities.registry.devices()[: _number(request, "top", 1000)]
    return web.json_response([identities.record(device) for device in devices])


async def list_modules(request: web.Request) -> web.Response:
    identities, device = request.app[HUB].identities, _identity(request)
    identities.record(device)
    modules = identities.registry.modules_of(device)
    return web.json_response([identities.record(module) for module in modules])


async def get_identity(request: web.Request) -> web.Response:
    return _identity_response(await request.app[HUB].identities.described(_identity(request)))


async def put_identity(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], _identity(request)
    await hub.identities.put(identity, await _body(request), request.headers.get("If-Match"))
    return _identity_response(await hub.identities.described(identity))


async def delete_identity(request: web.Request) -> web.Response:
    await request.app[HUB].identities.delete(_identity(request), request.headers.get("If-Match"))
    return web.Response(status=204)


def _identity_response(record: Json) -> web.Response:
    return web.json_response(record, headers={"ETag": f'"{record["etag"]}"'})


# --- twins ---


async def get_twin(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], _identity(request)
    return await _twin_response(hub, identity, await hub.identities.twin(identity))


async def update_twin(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], _identity(request)
    updated = await hub.identities.update_twin(
        identity,
        await _body(request),
        request.headers.get("If-Match"),
        replace=request.method == "PUT",
    )
    return await _twin_response(hub, identity, updated)


async def _twin_response(hub: Hub, identity: Identity, twin: Json) -> web.Response:
    record = await hub.identities.described(identity)
    shared = ("deviceId", "moduleId", "status", "statusUpdatedTime", "lastActivityTime",
              "connectionState", "cloudToDeviceMessageCount", "capabilities")  # fmt: skip
    document = {key: record[key] for key in shared if key in record}
    document |= {
        "authenticationType": "sas",
        "x509Thumbprint": record["authentication"]["x509Thumbprint"],
        "deviceEtag": record["etag"],
        **twin,
    }
    return web.json_response(document, headers={"ETag": f'"{twin["etag"]}"'})


# --- methods, and messages to devices ---


async def invoke_method(request: web.Request) -> web.Response:
    result = await request.app[HUB].methods.invoke(_identity(request), await _body(request))
    return web.json_response(result)


async def send_to_device(request: web.Request) -> web.Response:
    """Stands in for the AMQP endpoint of the real service: `{"body": any JSON, "bodyEncoding":
    "base64" or none, "properties": {}, "systemProperties": {"$.mid": ...}, "lifetimeSeconds": N}`,
    the form in which events are shown."""
    message = await _body(request)
    properties = {**message.get("systemProperties", {}), **message.get("properties", {})}
    if not all(isinstance(value, str | None) for value in properties.values()):
        raise RequestError(400, "each property has to be a string, or null")
    lifetime = message.get("lifetimeSeconds", cloud_to_device.LIFETIME_S)
    if not isinstance(lifetime, int) or not 0 <= lifetime <= cloud_to_device.LIFETIME_MAX_S:
        raise RequestError(400, f"lifetimeSeconds: 0 to {cloud_to_device.LIFETIME_MAX_S}")
    await request.app[HUB].send_to_device(
        _identity(request), properties, _message_body(message), lifetime
    )
    return web.Response(status=204)


def _message_body(message: Json) -> bytes:
    body = message.get("body")
    try:
        if message.get("bodyEncoding") == "base64":
            return base64.b64decode(body or "", validate=True)
    except (ValueError, TypeError):
        raise RequestError(400, "the body is not base64") from None
    return (body if isinstance(body, str) else json.dumps(body)).encode()


async def purge_messages(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], _identity(request)
    hub.identities.record(identity)
    count = await hub.cloud_to_device.purge(identity)
    return web.json_response(
        {"deviceId": identity.device, "totalMessagesPurged": count, "moduleId": None}
    )


# --- enrolments of the provisioning service ---


async def get_enrolment(request: web.Request) -> web.Response:
    names = request.match_info
    return web.json_response(request.app[HUB].provisioning.get(names["kind"], names["name"]))


async def put_enrolment(request: web.Request) -> web.Response:
    names = request.match_info
    enrolment = await request.app[HUB].provisioning.put(
        names["kind"], names["name"], await _body(request)
    )
    return web.json_response(enrolment)


async def delete_enrolment(request: web.Request) -> web.Response:
    names = request.match_info
    await request.app[HUB].provisioning.delete(names["kind"], names["name"])
    return web.Response(status=204)


# --- the hub's own ---


async def events(request: web.Request) -> web.StreamResponse:
    """Events as JSON lines, each with its number `id`: those after `after`, or the `last` so many;
    of one `device`; since `since` (ms since 1970); `follow=1` goes on for ever."""
    found = request.app[HUB].events.read(
        after=_number(request, "after"),
        last=_number(request, "last"),
        device=request.query.get("device"),
        since_ms=_number(request, "since"),
        follow=request.query.get("follow") == "1",
    )
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the reader went away
        async for batch in found:
            lines = [event_lines.line(number, event) for number, event in batch]
            await response.write(("\n".join(lines) + "\n").encode())
    return response


async def count(request: web.Request) -> web.Response:
    """How many messages are stored."""
    return web.json_response({"events": await request.app[HUB].events.count()})


async def list_identities(request: web.Request) -> web.Response:
    """All devices and modules, without their keys."""
    hub = request.app[HUB]
    records = [hub.identities.record(identity) for identity in sorted(hub.identities.registry)]
    for record in records:
        del record["authentication"]
    return web.json_response(records)


async def provisioning(request: web.Request) -> web.Response:
    """Where devices provision themselves."""
    hub = request.app[HUB]
    return web.json_response({"scope": hub.provisioning.scope, "host": hub.device_host})


async def processes(request: web.Request) -> web.Response:
    """The hub's processes by name: for tests that kill them."""
    return web.json_response({"broker": request.app[HUB].broker.pid})


async def kick(request: web.Request) -> web.Response:
    """Close a device's connection."""
    request.app[HUB].kick(_identity(request))
    return web.Response(status=204)


async def begin_fault(request: web.Request) -> web.Response:
    """See faults.py."""
    await request.app[HUB].faults.begin(request.match_info["kind"], await _body(request))
    return web.Response(status=204)


async def end_fault(request: web.Request) -> web.Response:
    await request.app[HUB].faults.end(request.match_info["kind"])
    return web.Response(status=204)


async def end_all_faults(request: web.Request) -> web.Response:
    await request.app[HUB].faults.end_all()
    return web.Response(status=204)
