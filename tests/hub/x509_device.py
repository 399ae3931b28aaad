"""On MicroPython: connects with a certificate, and sends one message.

Arguments: host, port, device id, and the files of certificate, key and CA, all DER."""

import asyncio
import sys

import iothub


async def main(host, port, device, certificate, key, ca):
    credentials = iothub.Credentials(
        host, device, None, port=int(port), certificate=(certificate, key)
    )
    client = iothub.HubClient(credentials, ca=[ca])
    client.start()
    await client.wait_connected(15)
    await client.send(b'"from MicroPython"')
    await client.stop()


asyncio.run(main(*sys.argv[1:]))
