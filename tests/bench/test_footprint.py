"""docs/footprint.md says what is so."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import footprint  # noqa: E402
import pytest  # noqa: E402
from conftest import LANES  # noqa: E402

TOLERANCE = 0.02


@pytest.mark.skipif(not LANES["32"].exists(), reason="the 32-bit MicroPython is missing")
def test_the_page_is_within_two_percent_of_what_is_measured() -> None:
    stale = [
        f"{what}: {value:,}, and the page says {known}"
        for (what, values, _), row in zip(footprint.rows(), footprint.written(), strict=True)
        for value, known in zip(values, row, strict=True)
        if value is not None and (known is None or abs(value - known) > TOLERANCE * value)
    ]
    assert not stale, "run `make footprint`:\n" + "\n".join(stale)
