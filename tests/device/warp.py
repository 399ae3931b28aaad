"""Another clock for device code: `time` as all modules see it, faster or without waiting.

Import this first, and call one of the two before anything else imports `time` or `asyncio`.
"""

import sys
import time as real


class _Time:
    """Stands in for the module `time`; `elapsed_ms()` says how long it has run."""

    def __init__(self, elapsed_ms):
        began = int(real.time())
        # asyncio's C code makes tasks due at the real `ticks_ms`: to be due at once, that must not
        # be ahead of this clock. So it starts with the real one, and is good for six days.
        first = real.ticks_ms()
        # Attributes, not methods: `from time import ticks_ms` takes no bound method.
        self.time = lambda: began + elapsed_ms() // 1000
        self.ticks_ms = lambda: real.ticks_add(first, elapsed_ms())

    def __getattr__(self, name):
        return getattr(real, name)


def faster(factor):
    """Time runs `factor` times as fast; waits for sockets are as much shorter."""
    seen = real.ticks_us()
    total_us = 0

    def elapsed_ms():
        nonlocal seen, total_us
        now = real.ticks_us()
        total_us += real.ticks_diff(now, seen) * factor
        seen = now
        return total_us // 1000

    sys.modules["time"] = _Time(elapsed_ms)
    import asyncio.core as core

    wait = core.IOQueue.wait_io_event
    core.IOQueue.wait_io_event = lambda self, ms: wait(self, ms // factor if ms > 0 else ms)


def jumping():
    """Nobody waits: when all tasks sleep, time jumps to when the first wakes. No sockets."""
    now_ms = 0
    sys.modules["time"] = _Time(lambda: now_ms)
    import asyncio.core as core

    def jump(self, ms):
        nonlocal now_ms
        if ms < 0:
            raise RuntimeError("all tasks wait for ever")
        now_ms += ms

    core.IOQueue.wait_io_event = jump
