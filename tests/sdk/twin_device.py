"""On MicroPython: prints the device's twin as JSON, and reports what it is told to.

Arguments: connection string, CA (DER), patch of the reported properties (JSON).
"""

import asyncio
import json
import sys

import iothub


async def main(text, ca, patch):
    client = iothub.HubClient(iothub.Credentials.parse(text), [ca])
    client.start()
    await client.wait_connected(15)
    print(json.dumps(await client.twin()))
    await client.report(json.loads(patch))
    await client.stop()


asyncio.run(main(*sys.argv[1:]))
