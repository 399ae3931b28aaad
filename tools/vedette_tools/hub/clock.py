"""Times as IoT Hub writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    return _text(datetime.now(UTC))


def utc(time_ms: int) -> str:
    """Milliseconds since 1970 as text."""
    return _text(datetime.fromtimestamp(time_ms / 1000, UTC))


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
