"""An asyncio HTTP server and its clients in one process."""

import asyncio

_REQUESTS = 5


async def answer(reader, writer):
    request = await reader.readline()
    length = 0
    while True:
        line = await reader.readline()
        if line in (b"\r\n", b""):
            break
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = await reader.readexactly(length)
    print("request", request, body[:20], len(body))
    answered = b"%d:" % len(body) + body
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answered))
    writer.write(answered)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /x HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    await writer.drain()
    status = await reader.readline()
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()
    return status, len(rest), rest[:40]


async def talk(port):
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    for i in range(_REQUESTS):
        print("answer", await ask(port, b"z" * i * 3000))
    answers = await asyncio.gather(*[ask(port, b"together") for _ in range(_REQUESTS)])
    print("answers", sorted(answers))
    try:
        await asyncio.open_connection("127.0.0.1", 1)
    except OSError as error:
        print("refused", error.errno)
    server.close()
    await server.wait_closed()


def main(port):
    asyncio.run(talk(int(port)))
