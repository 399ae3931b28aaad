"""The agent's log: one line a message on stderr, never longer than `_LINE_MAX` characters.

Nothing secret is ever passed in: callers log names, counts and reasons.
"""

import sys

from micropython import const

ERROR = const(1)
WARNING = const(2)
INFO = const(3)

_LINE_MAX = const(240)

level = INFO


def error(text):
    _line(ERROR, "error", text)


def warning(text):
    _line(WARNING, "warning", text)


def info(text):
    _line(INFO, "info", text)


def failed(what, error):
    """Tells of an error that nobody expected. Does not raise, not even without any heap left."""
    try:
        _line(ERROR, "error", "%s failed: %r" % (what, error))
    except MemoryError:
        pass  # it is counted all the same


def _line(severity, label, text):
    if severity <= level:
        print("vedette %s: %s" % (label, text[:_LINE_MAX].replace("\n", " ")), file=sys.stderr)
