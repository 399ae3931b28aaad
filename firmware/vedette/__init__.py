"""Vedette: a security micro agent. `vedette.start(...)` is all that an application needs.

This module imports nothing, so that `vedette.tap` can be in place before anything else.
"""

from micropython import const

VERSION = "0.1.0"

_CLOSE = const(2048)  # bytes between two collections of garbage


def start(*args, outbox_size=13312, **kwargs):
    """Puts the tap in and starts the agent: `vedette.agent.start` says with what."""
    import gc

    from . import tap

    tap.install()
    from .outbox import Outbox

    outbox = Outbox(outbox_size)  # in one piece, before the rest of the code cuts up the heap
    before = gc.threshold()
    gc.threshold(_CLOSE)  # what is loaded now stays: garbage in between would leave gaps
    try:
        from . import agent

        return agent.start(outbox, *args, **kwargs)
    finally:
        gc.threshold(before)
