"""The one place that knows where the board's clock counts from.

Ports count seconds from 1970 (unix) or from 2000 (ESP32, STM32); the hub, its tokens and the
messages count from 1970.
"""

import time

from micropython import const

_FROM_1970_TO_2000 = const(946684800)
_EARLIEST = const(1767225600)  # 2026-01-01: a clock that says less was never set

_offset = _FROM_1970_TO_2000 if time.gmtime(0)[0] == 2000 else 0
_seconds = 0
_rest_ms = 0
_seen = time.ticks_ms()


def unix():
    """Seconds since 1970-01-01, UTC."""
    return int(time.time()) + _offset


def plausible(unix_seconds):
    """Whether it can be that late: not before this was built."""
    return unix_seconds >= _EARLIEST


def is_set():
    """Whether the wall clock can be right."""
    return plausible(unix())


def uptime():
    """Seconds on a clock that never jumps or wraps.

    It extends `ticks_ms`, which wraps after 12 days: call it at least once a day.
    """
    global _seconds, _rest_ms, _seen
    now = time.ticks_ms()
    passed = _rest_ms + time.ticks_diff(now, _seen)
    _seen = now
    _seconds += passed // 1000
    _rest_ms = passed % 1000
    return _seconds


def gmtime(unix_seconds):
    """`unix_seconds` as time.gmtime's tuple."""
    return time.gmtime(unix_seconds - _offset)


def utc(unix_seconds):
    """`unix_seconds` as "YYYY-MM-DDThh:mm:ssZ"."""
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % gmtime(unix_seconds)[:6]
