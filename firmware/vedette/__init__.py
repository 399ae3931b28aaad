"""Vedette: a security micro agent. `vedette.start(...)` is all that an application needs.

This module imports nothing, so that `vedette.tap` can be in place before anything else.
"""

VERSION = "0.1.0"


def start(*args, **kwargs):
    """Puts the tap in and starts the agent: `vedette.agent.start` says with what."""
    from . import tap

    tap.install()
    from . import agent

    return agent.start(*args, **kwargs)
