"""What the agent needs of the platform: the only modules that know hardware or read /proc.

Each port module has the same functions; what the platform cannot tell is None.
"""

import sys

from micropython import const

_HOSTED = ("linux", "darwin")
_PIECE = const(256)
_LINE_MAX = const(16384)


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
        try:
            from .linux_facts import Facts

            return Facts(agent)
        except ImportError:
            pass  # a simulated board, which has board's code only
    from .board_facts import Facts

    return Facts(agent)


def pieces(path):
    """Yields the content of a file, in bytes. Errors: OSError with the path."""
    try:
        with open(path, "rb") as file:
            piece = file.read(_PIECE)
            while piece:
                yield piece
                piece = file.read(_PIECE)
    except OSError as error:
        raise OSError(error.errno, path)


def lines(path):
    """Yields the lines of a file, without spaces around them: readline would read each character.

    Errors: OSError with the path; RuntimeError where it is no text.
    """
    rest = b""
    try:
        for piece in pieces(path):
            rest += piece
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield str(line, "utf-8").strip()
            if len(rest) > _LINE_MAX:
                raise RuntimeError(path + " has a line that is too long")
        yield str(rest, "utf-8").strip()
    except UnicodeError:
        raise RuntimeError(path + " is not UTF-8")
