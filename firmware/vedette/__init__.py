"""Vedette: a security micro agent. `vedette.start(...)` is all that an application needs.

This module imports nothing, so that `vedette.tap` can be in place before anything else.
"""

from micropython import const

VERSION = "0.1.0"

_SETTLING_S = const(5)  # in which it connects, and first reports


def start(*args, outbox_size=6144, **kwargs):
    """Puts the tap in and starts the agent: `vedette.lifecycle.start` says with what."""
    import asyncio

    from . import tap

    tap.install()
    from .outbox import Outbox

    outbox = Outbox(outbox_size)  # in one piece, before the rest of the code cuts up the heap
    from .cold import Cold, Dense

    async def settle():
        with Dense():
            await asyncio.sleep(_SETTLING_S)

    asyncio.create_task(settle())
    with Dense():
        from . import agent  # noqa: F401 - loaded before, so that it stays

    with Cold():
        from .lifecycle import start

        return start(outbox, *args, **kwargs)
