"""What the agent needs of the platform: the only modules that know hardware or read /proc.

Each port module has the same functions; what the platform cannot tell is None.
"""

import sys


def load():
    """Returns the module for the platform this runs on."""
    if sys.platform in ("linux", "darwin"):
        from . import unix as port
    else:
        from . import board as port
    return port
