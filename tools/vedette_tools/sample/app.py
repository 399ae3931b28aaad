"""A sample application: it knows nothing of the agent that runs beside it.

An HTTP server and a client that asks it, and a UDP service that is sent readings. All of it on
this machine.
"""

import asyncio
import random
import socket


async def answer(reader, writer):
    while await reader.readline() not in (b"\r\n", b""):
        pass
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\n21.5 C")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port):
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"GET /temperature HTTP/1.0\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    reply = await reader.read(256)
    writer.close()
    await writer.wait_closed()
    return reply


def free_port():
    # MicroPython has no getsockname: try until a port can be bound.
    while True:
        port = 20000 + random.getrandbits(14)
        probe = socket.socket()
        try:
            probe.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
            return port
        except OSError:
            continue
        finally:
            probe.close()


def datagram_pair():
    port = free_port()
    address = socket.getaddrinfo("127.0.0.1", port)[0][-1]
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.bind(address)
    service.setblocking(False)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return service, client, address


async def main():
    port = free_port()
    await asyncio.start_server(answer, "127.0.0.1", port)
    service, client, address = datagram_pair()
    while True:
        for _ in range(random.getrandbits(2)):
            await ask(port)
        client.sendto(b"reading 21.5", address)
        await asyncio.sleep_ms(50)
        data, peer = service.recvfrom(64)
        service.sendto(b"ok " + data, peer)
        client.recvfrom(64)
        await asyncio.sleep_ms(700)
