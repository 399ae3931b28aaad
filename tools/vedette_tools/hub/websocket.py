"""MQTT over WebSockets, as devices speak it where port 8883 is shut: passed on to the broker."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from vedette_tools.hub.broker import PACKET_MAX
from vedette_tools.hub.rest import HUB

PATH = "/$iothub/websocket"
CHUNK_BYTES = 1 << 16

routes = web.RouteTableDef()


@routes.get(PATH)
async def relay(request: web.Request) -> web.StreamResponse:
    """Whether a device may connect, the broker asks once MQTT's CONNECT is there."""
    device = web.WebSocketResponse(protocols=("mqtt",), max_msg_size=PACKET_MAX)
    await device.prepare(request)
    try:
        reader, broker = await asyncio.open_unix_connection(request.app[HUB].broker.socket)
    except OSError:  # it is down: a fault on demand, or about to be started again
        await device.close()
        return device
    from_broker = asyncio.create_task(_pass_back(reader, device))
    try:
        async for message in device:
            if message.type != WSMsgType.BINARY:
                break
            broker.write(message.data)
            await broker.drain()
    except ConnectionError:
        pass  # the broker has closed
    finally:
        from_broker.cancel()
        broker.close()
        await device.close()
    return device


async def _pass_back(reader: asyncio.StreamReader, device: web.WebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK_BYTES):
            await device.send_bytes(chunk)
    await device.close()
