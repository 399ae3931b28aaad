"""An asyncio TLS echo server of one client."""

import asyncio

import tls


async def serve(port, cert, key):
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    with open(cert, "rb") as c, open(key, "rb") as k:
        context.load_cert_chain(c.read(), k.read())
    ended = asyncio.Event()

    async def echo(reader, writer):
        while True:
            line = await reader.readline()
            print(len(line), line[:8])
            if not line:
                break
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", port, ssl=context)
    print("ready")
    await asyncio.wait_for(ended.wait(), 20)
    server.close()
    await server.wait_closed()


def main(port, cert, key):
    asyncio.run(serve(int(port), cert, key))
