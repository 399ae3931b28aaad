"""The hot path: wrappers around a socket's native methods that count what each call moved.

They are closures kept in the socket's own attributes, and native code: a method that looks its
state up in attributes costs twice as much (docs/nettap.md has the figures). A closure has four
cells at most, as MicroPython calls one with more than five values, arguments included, through the
heap.
"""

import socket

import micropython

PEEK = getattr(socket, "MSG_PEEK", 0)


def uncounted(token, size):
    """Stands in for a sink's counting once the tap is out."""
    return 1


def counting(count):
    """Return (stop, sized, data), which count by `count(token, size) -> 1 or 0`.

    stop() ends the counting, in all wrappers. sized(call, missed, token) wraps a method that
    takes a buffer and returns the number of bytes, data(call, missed, token) one that returns the
    bytes. Where the token is stale, missed(size, bytes) counts, and returns a new one.
    """

    def stop():
        nonlocal count
        count = uncounted

    def sized(call, missed, token):
        @micropython.native
        def method(buf, *rest):
            nonlocal token
            size = call(buf, *rest) if rest else call(buf)
            if size is not None and not count(token, size):
                token = missed(size, buf)
            return size

        return method

    def data(call, missed, token):
        @micropython.native
        def method(size=-1, *rest):
            nonlocal token
            if rest:
                return _flagged(call, missed, size, rest)
            got = call(size)
            if got is not None and not count(token, len(got)):
                token = missed(len(got), got)
            return got

        return method

    return stop, sized, data


def _flagged(call, missed, size, rest):
    got = call(size, *rest)
    if not rest[0] & PEEK:  # bytes that stay where they are are counted when they are taken
        missed(len(got), got)
    return got
