"""Requests a second of an asyncio HTTP server and client; argument: `tap` or `plain`."""

import json
import sys
import time

_REQUESTS = 1500

if sys.argv[1] == "tap":
    import flowtable
    from nettap import sockets

    sockets.install(flowtable.FlowTable())

import asyncio  # noqa: E402 - after the tap
import random  # noqa: E402


async def answer(reader, writer):
    while await reader.readline() not in (b"\r\n", b""):
        pass
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 64\r\n\r\n" + bytes(64))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    total = 0
    while True:
        data = await reader.read(256)
        if not data:
            break
        total += len(data)
    writer.close()
    await writer.wait_closed()
    return total


async def main():
    while True:
        port = 20000 + random.getrandbits(14)
        try:
            await asyncio.start_server(answer, "127.0.0.1", port)
            break
        except OSError:
            pass
    began = time.ticks_us()
    for _ in range(_REQUESTS):
        assert await ask(port) > 64
    elapsed = time.ticks_diff(time.ticks_us(), began)
    print(json.dumps({"rate": [_REQUESTS * 1000000 / elapsed]}))


asyncio.run(main())
