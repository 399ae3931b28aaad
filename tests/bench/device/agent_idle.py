"""The agent beside an application that does nothing, until it is ended.

Arguments: connection string, CA (DER). Says `ready` once it is connected.
"""

from vedette import tap

tap.install()

import asyncio  # noqa: E402
import sys  # noqa: E402

import vedette  # noqa: E402


async def main():
    agent = vedette.start(connection_string=sys.argv[1], ca=[sys.argv[2]])
    await agent.client.wait_connected(20)
    print("ready")
    await asyncio.sleep(3600)


asyncio.run(main())
