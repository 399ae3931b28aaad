"""Tasks that go on for as long as the agent does, whatever happens in them."""

import asyncio

from micropython import const

from .. import log

_RETRY_S = const(10)


async def keep(agent, name, run):
    """Awaits `run()`, and again a while after it failed; what failed is counted and in the log."""
    while True:
        try:
            return await run()
        except Exception as error:
            agent.scheduler.errors += 1
            log.failed(name, error)
        await asyncio.sleep(_RETRY_S)
