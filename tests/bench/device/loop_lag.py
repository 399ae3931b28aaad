"""How late a 5 ms ticker of the application is while the agent works beside it.

Arguments: seconds, connection string, CA (DER). Prints the latenesses in ms: the 99th percentile
and the greatest.
"""

from vedette import tap

tap.install()

import array  # noqa: E402
import asyncio  # noqa: E402
import json  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import vedette  # noqa: E402

_PERIOD_US = 5000
_WARM_UP_S = 2
_FLOWS = 50


async def ticker(late):
    """Writes into `late` how late each tick is, in units of 10 us, until it is full."""
    due = time.ticks_us()
    for index in range(len(late)):
        due = time.ticks_add(due, _PERIOD_US)
        wait = time.ticks_diff(due, time.ticks_us())
        if wait > 0:
            # Down to the millisecond by asyncio; the rest is below what is measured.
            await asyncio.sleep_ms((wait + 999) // 1000)
        else:
            await asyncio.sleep_ms(0)
        behind = time.ticks_diff(time.ticks_us(), due)
        late[index] = min(max(behind, 0) // 10, 65535)
        if behind > _PERIOD_US:
            due = time.ticks_us()


async def traffic():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    targets = [socket.getaddrinfo("127.0.1.%d" % (i + 1), 9)[0][-1] for i in range(_FLOWS)]
    while True:
        for target in targets:
            try:
                sender.sendto(b"reading", target)
            except OSError:
                pass  # nobody listens there
            await asyncio.sleep_ms(10)


async def main():
    seconds = int(sys.argv[1])
    agent = vedette.start(connection_string=sys.argv[2], ca=[sys.argv[3]])
    await agent.client.wait_connected(20)
    await asyncio.sleep(_WARM_UP_S)
    asyncio.create_task(traffic())
    late = array.array("H", bytes(2 * seconds * 1000000 // _PERIOD_US))
    await ticker(late)
    ordered = sorted(late)
    print(
        json.dumps(
            {
                "p99": [ordered[len(ordered) * 99 // 100] / 100],
                "max": [ordered[-1] / 100],
                "acknowledged": [agent.sender.acknowledged],
                "connects": [agent.client.stats["connects"]],
            }
        )
    )


asyncio.run(main())
