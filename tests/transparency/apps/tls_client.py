"""TLS clients of an echo server: blocking and asyncio."""

import asyncio
import socket

import tls
from transcript import show


def context(ca):
    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    with open(ca, "rb") as f:
        made.load_verify_locations(f.read())
    return made


def connect(port, ca, name):
    """A TLS socket, or what wrap_socket raises."""
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
    try:
        return context(ca).wrap_socket(s, server_hostname=name)
    except Exception:
        s.close()
        raise


def blocking(port, ca):
    s = connect(port, ca, "localhost")
    show("write", s.write, b"hello\n")
    show("readline", s.readline)
    show("write much", s.write, b"m" * 5000)
    print(len(s.read(5000)))
    show("quit", s.write, b"QUIT\n")
    show("end", s.read)
    show("close", s.close)


async def streams(port, ca):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context(ca), server_hostname="localhost"
    )
    for data in (b"first\n", b"n" * 3000 + b"\n"):
        writer.write(data)
        await writer.drain()
        print(len(await reader.readline()))
    writer.write(b"QUIT\n")
    await writer.drain()
    print(await reader.read())
    writer.close()
    await writer.wait_closed()


def main(port, ca):
    blocking(int(port), ca)
    asyncio.run(streams(int(port), ca))
