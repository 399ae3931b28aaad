"""The agent from its start until the hub has acknowledged a first message.

Arguments: connection string, CA (DER). Says `acknowledged`.
"""

from vedette import tap

tap.install()

import asyncio  # noqa: E402
import sys  # noqa: E402

import vedette  # noqa: E402


async def main():
    agent = vedette.start(connection_string=sys.argv[1], ca=[sys.argv[2]], journal=False)
    await agent.collect("Heartbeat")
    while not agent.sender.acknowledged:
        await asyncio.sleep_ms(0)
    print("acknowledged")


asyncio.run(main())
