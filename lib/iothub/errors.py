"""What goes wrong, and how code is run that is seldom needed."""

import sys


def cold(module, name, *args):
    """Calls `name` of iothub.`module`; what was loaded for that leaves the heap afterwards."""
    before = set(sys.modules)
    try:
        return getattr(__import__("iothub." + module, None, None, (name,)), name)(*args)
    finally:
        for path in set(sys.modules) - before:
            if path.startswith("iothub."):
                del sys.modules[path]
                delattr(sys.modules["iothub"], path[7:])


class HubError(Exception):
    """Why the hub could not be reached, or refused something.

    `code` is one of those in reasons.py; `detail`, if any, what it was about (a host, a number).
    As a str it says what is wrong and what to do. It never holds a key or a token.
    """

    def __init__(self, code, detail=None):
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self):
        try:
            return cold("reasons", "text", self.code, self.detail)
        except MemoryError:  # who logs an error must not meet another
            return self.code
