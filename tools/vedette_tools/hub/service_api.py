"""The REST API of IoT Hub, as far as Microsoft's service SDKs use it.

Paths and bodies: Microsoft's "IoT Hub REST API reference". The api-version is not looked at.
"""

from __future__ import annotations

from aiohttp import web

from vedette_tools.hub.enrolments import GROUP, INDIVIDUAL
from vedette_tools.hub.hub import Hub
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.query import Query
from vedette_tools.hub.rest import HUB, Json, body_of, identity_of, json_of, number, number_of

QUERY_PAGE = 100
QUERY_PAGE_MAX = 2000

routes = web.RouteTableDef()

_ENROLMENT = f"/{{kind:{INDIVIDUAL}|{GROUP}}}/{{name}}"
_DEVICE, _MODULE = "/{device}", "/{device}/modules/{module}"


# --- identities ---


@routes.get("/devices")
@routes.get("/devices/")  # as the Node SDK asks
async def list_devices(request: web.Request) -> web.Response:
    identities = request.app[HUB].identities
    devices = identities.registry.devices()[: number_of(request, "top", 1000)]
    return web.json_response([identities.record(device) for device in devices])


@routes.post("/devices")
async def change_devices(request: web.Request) -> web.Response:
    errors = await request.app[HUB].identities.change_many(await json_of(request))
    body = {"isSuccessful": not errors, "errors": errors, "warnings": []}
    if errors:
        body["ExceptionMessage"] = "; ".join(error["errorStatus"] for error in errors)
    return web.json_response(body, status=400 if errors else 200)


@routes.get("/devices/{device}/modules")
async def list_modules(request: web.Request) -> web.Response:
    identities, device = request.app[HUB].identities, identity_of(request)
    identities.record(device)
    modules = identities.registry.modules_of(device)
    return web.json_response([identities.record(module) for module in modules])


@routes.get("/devices" + _DEVICE)
@routes.get("/devices" + _MODULE)
async def get_identity(request: web.Request) -> web.Response:
    return _identity_response(await request.app[HUB].identities.described(identity_of(request)))


@routes.put("/devices" + _DEVICE)
@routes.put("/devices" + _MODULE)
async def put_identity(request: web.Request) -> web.Response:
    identities, identity = request.app[HUB].identities, identity_of(request)
    await identities.put(identity, await body_of(request), request.headers.get("If-Match"))
    return _identity_response(await identities.described(identity))


@routes.delete("/devices" + _DEVICE)
@routes.delete("/devices" + _MODULE)
async def delete_identity(request: web.Request) -> web.Response:
    if_match = request.headers.get("If-Match")
    await request.app[HUB].identities.delete(identity_of(request), if_match)
    return web.Response(status=204)


def _identity_response(record: Json) -> web.Response:
    return web.json_response(record, headers={"ETag": f'"{record["etag"]}"'})


@routes.get("/statistics/devices")
async def registry_statistics(request: web.Request) -> web.Response:
    registry = request.app[HUB].identities.registry
    devices = registry.devices()
    enabled = sum(registry[device]["status"] == "enabled" for device in devices)
    return web.json_response(
        {
            "totalDeviceCount": len(devices),
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": len(devices) - enabled,
        }
    )


@routes.get("/statistics/service")
async def service_statistics(request: web.Request) -> web.Response:
    return web.json_response({"connectedDeviceCount": request.app[HUB].sessions.devices()})


# --- twins ---


@routes.get("/twins" + _DEVICE)
@routes.get("/twins" + _MODULE)
async def get_twin(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], identity_of(request)
    response = await _twin_response(hub, identity, await hub.identities.twin(identity))
    await hub.charge(response.content_length or 0)
    return response


@routes.patch("/twins" + _DEVICE)
@routes.patch("/twins" + _MODULE)
@routes.put("/twins" + _DEVICE)
@routes.put("/twins" + _MODULE)
async def update_twin(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], identity_of(request)
    await hub.take_in()
    updated = await hub.identities.update_twin(
        identity,
        await body_of(request),
        request.headers.get("If-Match"),
        replace=request.method == "PUT",
    )
    await hub.charge(request.content_length or 0)
    return await _twin_response(hub, identity, updated)


async def _twin_response(hub: Hub, identity: Identity, twin: Json) -> web.Response:
    document = await hub.identities.twin_document(identity, twin)
    return web.json_response(document, headers={"ETag": f'"{twin["etag"]}"'})


@routes.post("/devices/query")
async def query(request: web.Request) -> web.Response:
    """A page of the twins that a query asks for; the continuation is the last device's id."""
    hub = request.app[HUB]
    identities = hub.identities
    wanted = Query.parse((await body_of(request)).get("query"))
    after = request.headers.get("x-ms-continuation", "")
    size = number("x-ms-max-item-count", request.headers.get("x-ms-max-item-count") or "0")
    size = min(size or QUERY_PAGE, QUERY_PAGE_MAX)
    found: list[Json] = []
    headers = {"x-ms-item-type": "Twin"}
    for device in sorted(identities.registry.devices()):
        if device.device <= after:
            continue
        document = await identities.twin_document(device, await identities.twin(device))
        if not wanted.matches(document):
            continue
        if len(found) == size:
            headers["x-ms-continuation"] = found[-1]["deviceId"]
            break
        found.append(document)
    response = web.json_response(found, headers=headers)
    await hub.charge(response.content_length or 0)
    return response


# --- methods, and messages to devices ---


@routes.post("/twins/{device}/methods")
@routes.post("/twins/{device}/modules/{module}/methods")
async def invoke_method(request: web.Request) -> web.Response:
    hub = request.app[HUB]
    await hub.take_in()
    identity = identity_of(request)
    hub.identities.record(identity)  # or there is none
    response = web.json_response(await hub.methods.invoke(identity, await body_of(request)))
    await hub.charge(request.content_length or 0, response.content_length or 0)
    return response


@routes.delete("/devices/{device}/commands")
async def purge_messages(request: web.Request) -> web.Response:
    hub, identity = request.app[HUB], identity_of(request)
    hub.identities.record(identity)
    count = await hub.cloud_to_device.purge(identity)
    return web.json_response(
        {"deviceId": identity.device, "totalMessagesPurged": count, "moduleId": None}
    )


# --- enrolments of the provisioning service ---


@routes.get(_ENROLMENT)
async def get_enrolment(request: web.Request) -> web.Response:
    enrolments, names = request.app[HUB].provisioning.enrolments, request.match_info
    return web.json_response(enrolments.get(names["kind"], names["name"]))


@routes.put(_ENROLMENT)
async def put_enrolment(request: web.Request) -> web.Response:
    enrolments, names = request.app[HUB].provisioning.enrolments, request.match_info
    made = await enrolments.put(names["kind"], names["name"], await body_of(request))
    return web.json_response(made)


@routes.delete(_ENROLMENT)
async def delete_enrolment(request: web.Request) -> web.Response:
    enrolments, names = request.app[HUB].provisioning.enrolments, request.match_info
    await enrolments.delete(names["kind"], names["name"])
    return web.Response(status=204)
