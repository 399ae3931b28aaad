"""Requests a second of an asyncio HTTP server and client; argument: `tap` or `plain`."""

import json
import sys
import time

_REQUESTS = 6000
_A_CONNECTION = 100

if sys.argv[1] == "tap":
    import flowtable
    from nettap import sockets

    sockets.install(flowtable.FlowTable())

import asyncio  # noqa: E402 - after the tap
import random  # noqa: E402


async def answer(reader, writer):
    """Answers the requests of a connection that is kept alive, until the client closes it."""
    while await reader.readline():
        while await reader.readline() != b"\r\n":
            pass
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + bytes(64))
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await writer.drain()
        while await reader.readline() != b"\r\n":
            pass
        assert len(await reader.readexactly(64)) == 64
    writer.close()
    await writer.wait_closed()


async def main():
    while True:
        port = 20000 + random.getrandbits(14)
        try:
            await asyncio.start_server(answer, "127.0.0.1", port)
            break
        except OSError:
            pass
    await ask(port, _A_CONNECTION)
    began = time.ticks_us()
    for _ in range(_REQUESTS // _A_CONNECTION):
        await ask(port, _A_CONNECTION)
    elapsed = time.ticks_diff(time.ticks_us(), began)
    print(json.dumps({"rate": [_REQUESTS * 1000000 / elapsed]}))


asyncio.run(main())
