"""The fuzzing of tests/unit/mpy_iothub_*.py at length: packets, twins, method calls, messages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import LANES, device_environment
from device import lane

__all__ = ["lane"]

CASES = "100000"
UNIT = Path(__file__).resolve().parent.parent / "unit"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("file", "test"),
    [
        ("mpy_iothub_mqtt.py", "test_fuzz"),
        ("mpy_iothub_client.py", "test_fuzzed_twins_methods_and_messages"),
    ],
)
def test_100_000_cases(lane: str, tmp_path: Path, file: str, test: str) -> None:
    seed = str(int.from_bytes(os.urandom(3), "big"))
    done = subprocess.run(
        [LANES[lane], UNIT.parent / "device" / "harness.py", UNIT / file, test],
        cwd=tmp_path,
        env={**device_environment(), "VEDETTE_FUZZ_CASES": CASES, "VEDETTE_FUZZ_SEED": seed},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert f"PASS {test}" in done.stdout, f"seed {seed}:\n{done.stdout}{done.stderr}"
