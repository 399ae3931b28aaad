"""What the agent needs of the platform: the only modules that know hardware or read /proc.

Each port module has the same functions; what the platform cannot tell is None.
"""

import sys

_HOSTED = ("linux", "darwin")


def load():
    """Returns the module for the platform this runs on."""
    if sys.platform in _HOSTED:
        from . import unix as port
    else:
        from . import board as port
    return port


def facts(agent):
    """Returns what the baseline's packs ask of the platform."""
    if sys.platform in _HOSTED:
        from .linux_facts import Facts
    else:
        from .board_facts import Facts
    return Facts(agent)
