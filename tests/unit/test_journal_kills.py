"""The process is killed at every single write of the journal: nothing complete is ever lost."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from conftest import LANES, ROOT, device_environment

SCRIPT = ROOT / "tests" / "device" / "journal_kill.py"
WRITES_MIN = 60  # fewer would mean that writes are not counted


def run(lane: str, folder: Path, *arguments: object) -> tuple[int, list[list[str]]]:
    done = subprocess.run(
        [str(LANES[lane]), str(SCRIPT), *map(str, arguments)],
        cwd=folder,
        env=device_environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in done.stderr and "failed" not in done.stderr, done.stderr
    return done.returncode, [line.split() for line in done.stdout.splitlines()]


def records(events: list[list[str]], what: str) -> set[str]:
    return {event[1] for event in events if event[0] == what}


def before_last_save(events: list[list[str]]) -> list[list[str]]:
    """What had happened when the last save began that was completed."""
    done = max((i for i, event in enumerate(events) if event == ["done"]), default=0)
    return events[: max((i for i in range(done) if events[i] == ["begin"]), default=0)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("lane", "step"),
    [
        ("64", 11),
        pytest.param("64", 1, marks=pytest.mark.slow),
        pytest.param("32", 1, marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_write(lane: str, step: int, tmp_path: Path) -> None:
    """Every `step`-th write is a case."""
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    kill_at = 0
    status = -signal.SIGKILL
    while status == -signal.SIGKILL:
        kill_at += step
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        status, before = run(lane, folder, kill_at)
        again, after = run(lane, folder, 0, "offline")
        assert again == 0, kill_at
        saved = before_last_save(before)
        restored = records(after, "restored")
        assert records(saved, "added") - records(before, "acknowledged") <= restored, kill_at
        assert restored <= records(before, "added") - records(saved, "acknowledged"), kill_at
        # What came after the kill stands behind nothing torn.
        again, last = run(lane, folder, 0)
        assert again == 0, kill_at
        assert records(last, "restored") == restored | records(after, "added"), kill_at
        waited = records(last, "restored") | records(last, "added")
        assert records(last, "acknowledged") == waited, kill_at
    assert status == 0
    assert kill_at > WRITES_MIN
