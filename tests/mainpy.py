"""main.py as a board runs it, in a folder of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import LANES, device_environment
from hubfixture import wait_for
from serialboard import waits

AGAIN_S = 5
SECRET = "c2VjcmV0LWtleQ=="
GOOD = {
    # Nothing listens on port 1: the agent runs and goes on trying.
    "connection_string": f"HostName=127.0.0.1:1;DeviceId=board;SharedAccessKey={SECRET}",
    "ca": "ca.der",
}
# What a host does not tell and does not have, and a board does.
AS_A_BOARD = """
import sys
from vedette.ports import unix
unix.reset_cause = lambda: %r
unix.restart = lambda: lambda: print("reset") or sys.exit(2)
unix.watchdog = lambda seconds: print("watchdog", seconds) or (lambda: print("fed"))
import main
"""


class Board:
    def __init__(self, folder: Path, lane: str) -> None:
        if not LANES[lane].exists():
            pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
        self.folder = folder
        self.program = LANES[lane]
        (folder / "ca.der").write_bytes(b"\x30\x00")

    def run(
        self,
        config: str | dict | None = None,
        app: str | None = None,
        until: str = "",
        then: signal.Signals = signal.SIGINT,
        cause: str | None = None,
    ) -> tuple[int, str]:
        """Runs main.py, after a reset of that cause; returns its exit code and output.

        With `until`, sends it the signal `then` once that was said, when it must still be running.
        """
        if config is not None:
            text = config if isinstance(config, str) else json.dumps(config)
            (self.folder / "config.json").write_text(text)
        if app is not None:
            (self.folder / "app.py").write_text(app)
        process = subprocess.Popen(
            [self.program, "-X", "heapsize=1m", "-c", AS_A_BOARD % cause],
            cwd=self.folder,
            env=device_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # MicroPython's asyncio.wait_for can swallow a KeyboardInterrupt: one presses again.
        again = threading.Timer(AGAIN_S, process.send_signal, [then])
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until and until in line:
                signal_at_rest(process, then)
                again.start()
                until = ""
        again.cancel()
        return process.wait(10), "".join(lines)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def signal_at_rest(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Sends a process a signal while it, and a MicroPython that it runs, wait for something.

    The unix port raises KeyboardInterrupt inside the signal's handler: while garbage is collected,
    that leaves the heap locked. No board does so.
    """

    def at_rest() -> bool:
        return all(waits(each) for each in (process.pid, *_children(process.pid)))

    wait_for(at_rest, bool)
    process.send_signal(number)


@pytest.fixture(params=LANES)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    return Board(tmp_path, request.param)
