"""What the hub has besides the real service's API, for development and tests: `/vedette/...`."""

from __future__ import annotations

import base64
import contextlib
import json

from aiohttp import web

from vedette_tools.hub import cloud_to_device, event_lines, metering
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.fields import object_in
from vedette_tools.hub.rest import HUB, Json, body_of, identity_of, number_of

routes = web.RouteTableDef()


@routes.post("/vedette/messages/{device}")
async def send_to_device(request: web.Request) -> web.Response:
    """Send a cloud-to-device message: `{"body": any JSON, "bodyEncoding": "base64" or none,
    "properties": {}, "systemProperties": {"$.mid": ...}, "lifetimeSeconds": N}`, the form in which
    events are shown."""
    message = await body_of(request)
    properties = {**object_in(message, "systemProperties"), **object_in(message, "properties")}
    if not all(isinstance(value, str | None) for value in properties.values()):
        raise RequestError(400, "each property has to be a string, or null")
    lifetime = message.get("lifetimeSeconds", cloud_to_device.LIFETIME_S)
    if not isinstance(lifetime, int) or not 0 <= lifetime <= cloud_to_device.LIFETIME_MAX_S:
        raise RequestError(400, f"lifetimeSeconds: 0 to {cloud_to_device.LIFETIME_MAX_S}")
    await request.app[HUB].send_to_device(
        identity_of(request), properties, _message_body(message), lifetime
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


@routes.get("/vedette/events")
async def events(request: web.Request) -> web.StreamResponse:
    """Events as JSON lines, each with its number `id`: those after `after`, or the `last` so many;
    of one `device`; since `since` (ms since 1970); `follow=1` goes on for ever."""
    found = request.app[HUB].events.read(
        after=number_of(request, "after"),
        last=number_of(request, "last"),
        device=request.query.get("device"),
        since_ms=number_of(request, "since"),
        follow=request.query.get("follow") == "1",
    )
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the reader went away
        async for batch in found:
            lines = [event_lines.line(number, event) for number, event in batch]
            await response.write(("\n".join(lines) + "\n").encode())
    return response


@routes.get("/vedette/statistics")
async def statistics(request: web.Request) -> web.Response:
    """What there is, and `meteredToday`: the units that count against the quota of the `day`,
    which is `dailyQuota`, or null; see metering.py."""
    hub = request.app[HUB]
    store, run = hub.database.store, hub.database.run
    day = metering.today()
    return web.json_response(
        {
            "devices": len(hub.identities.registry.devices()),
            "connectedDevices": hub.sessions.devices(),
            "events": await run(store.count_events),
            "day": day,
            "meteredToday": await run(store.metered, day),
            "dailyQuota": hub.quota.limit,
        }
    )


@routes.get("/vedette/identities")
async def list_identities(request: web.Request) -> web.Response:
    """All devices and modules, without their keys."""
    hub = request.app[HUB]
    records = [hub.identities.record(identity) for identity in sorted(hub.identities.registry)]
    for record in records:
        del record["authentication"]
    return web.json_response(records)


@routes.get("/vedette/authorities")
async def list_authorities(request: web.Request) -> web.Response:
    """The names of the authorities whose signature on a device's certificate is trusted."""
    return web.json_response(request.app[HUB].authorities.names())


@routes.put("/vedette/authorities/{name}")
async def put_authority(request: web.Request) -> web.Response:
    """`{"certificate": PEM}`"""
    certificate = (await body_of(request)).get("certificate")
    await request.app[HUB].authorities.put(request.match_info["name"], certificate)
    return web.Response(status=204)


@routes.delete("/vedette/authorities/{name}")
async def delete_authority(request: web.Request) -> web.Response:
    await request.app[HUB].authorities.delete(request.match_info["name"])
    return web.Response(status=204)


@routes.get("/vedette/provisioning")
async def provisioning(request: web.Request) -> web.Response:
    """Where devices provision themselves."""
    hub = request.app[HUB]
    return web.json_response({"scope": hub.provisioning.scope, "host": hub.provisioning_host})


@routes.get("/vedette/processes")
async def processes(request: web.Request) -> web.Response:
    """The hub's processes by name: for tests that kill them."""
    return web.json_response({"broker": request.app[HUB].broker.pid})


@routes.post("/vedette/kick/{device}")
@routes.post("/vedette/kick/{device}/modules/{module}")
async def kick(request: web.Request) -> web.Response:
    """Close a device's connection."""
    request.app[HUB].kick(identity_of(request))
    return web.Response(status=204)


@routes.put("/vedette/faults/{kind}")
async def begin_fault(request: web.Request) -> web.Response:
    """See faults.py."""
    await request.app[HUB].faults.begin(request.match_info["kind"], await body_of(request))
    return web.Response(status=204)


@routes.delete("/vedette/faults/{kind}")
async def end_fault(request: web.Request) -> web.Response:
    await request.app[HUB].faults.end(request.match_info["kind"])
    return web.Response(status=204)


@routes.delete("/vedette/faults")
async def end_all_faults(request: web.Request) -> web.Response:
    await request.app[HUB].faults.end_all()
    return web.Response(status=204)
