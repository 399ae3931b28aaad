"""`vedette monitor`: what a board says, over a line that comes and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from deskfixture import COMMAND, Desk

APP = """
import asyncio
from vedette import log
async def main():
    log.warning("a warning")
    log.error("an error")
    print("vedette: not the agent's")
    while True:
        await asyncio.sleep_ms(50)
        print("tick")
"""


class Monitor:
    def __init__(self, desk: Desk, *words: str, command: str = "monitor") -> None:
        self._process = subprocess.Popen(
            [COMMAND, command, *words],
            env={**os.environ, "VEDETTE_PORT": str(desk.board.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout
        self._lines = iter(self._process.stdout)

    def until(self, text: str) -> list[str]:
        """The lines up to the first with this text."""
        found = []
        for line in self._lines:
            found.append(line.rstrip("\n"))
            if text in line:
                return found
        raise AssertionError(f"the monitor ended: {found}")

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(10)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def monitor(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Monitor]:
    (desk.flash / "app.py").write_text(APP)
    (desk.flash / "v-a" / "app.mpy").unlink()
    made = Monitor(desk, "--reset", *getattr(request, "param", ()))
    yield made
    made.close()


def test_levels_are_told_apart(monitor: Monitor) -> None:
    assert monitor.until(" runs")[-1] == "info    version 0.1.0 runs"
    lines = monitor.until("tick")
    assert "warning a warning" in lines and "error   an error" in lines
    assert "vedette: not the agent's" in lines
    assert monitor.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("monitor", [("--level", "error", "--json")], indirect=True)
def test_a_level_leaves_out_what_is_below(monitor: Monitor) -> None:
    shown = [json.loads(line) for line in monitor.until("an error") + monitor.until("tick")]
    assert {line["level"] for line in shown} == {None, "error"}


def test_it_goes_on_when_the_board_is_back(desk: Desk, monitor: Monitor) -> None:
    monitor.until("tick")
    desk.board.unplug()
    monitor.until("is not there; waiting for it --")
    desk.board.plug()
    monitor.until("is back --")
    monitor.until("tick")


@pytest.mark.slow
def test_a_level_that_is_none(desk: Desk) -> None:
    error = desk.vedette("monitor", "--level", "warn", code=2)
    assert "did you mean warning?" in error


@pytest.mark.slow
def test_run_deploys_and_then_shows(desk: Desk) -> None:
    (desk.project / "app.py").write_text(APP)
    shown = Monitor(desk, str(desk.project), command="run")
    try:
        lines = shown.until("tick")
        assert "it runs" in lines and any("1 files sent" in line for line in lines)
        assert shown.stop() == 0
    finally:
        shown.close()
