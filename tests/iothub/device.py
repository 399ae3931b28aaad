"""Runs probe.py on a real MicroPython and talks with it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conftest import LANES, device_environment  # noqa: E402

PROBE = Path(__file__).with_name("probe.py")
KEY = "c2VjcmV0LWtleS1vZi1hLWRldmljZQ=="

Json = dict[str, Any]


_WANTED = os.environ.get("VEDETTE_LANES", "64").split(",")


def lanes() -> list[str]:
    """Those that were asked for and are there, for a test that runs them side by side."""
    found = [name for name in _WANTED if LANES[name].exists()]
    return found or pytest.skip("no MicroPython of these lanes")


@pytest.fixture(params=_WANTED)
def lane(request: pytest.FixtureRequest) -> str:
    """The MicroPython that the device runs on."""
    name = str(request.param)
    if not LANES[name].exists():
        pytest.skip(f"no {name}-bit MicroPython (make setup-32)")
    return name


class Device:
    """The probe's process, whose time runs `speed` times as fast. What it told is in `told`."""

    def __init__(
        self, lane: str, connection_string: Any, ca: Path, *, speed: int = 5, **options: Any
    ) -> None:
        config = {"connection_string": connection_string, "ca": [str(ca)], **options}
        self._process = subprocess.Popen(
            [LANES[lane], PROBE, str(speed)],
            env=device_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.told: list[Json] = []
        self.prints = False  # whether lines that are no events (a traceback) are expected
        self._number = 0
        self._write(config)
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)

    def do(self, order: str, **fields: Any) -> int:
        """Gives an order; the number that its outcome will carry."""
        self._number += 1
        self._write({"do": order, "number": self._number, **fields})
        return self._number

    def _write(self, line: Json) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def expect(self, event: str, timeout: float = 20, **fields: Any) -> Json:
        """The next thing told that is `event` with these fields; what came before is skipped."""
        wanted = {"event": event, **fields}
        return self._wait(
            lambda told: all(told.get(k) == v for k, v in wanted.items()), timeout, str(wanted)
        )

    def _wait(self, holds: Callable[[Json], bool], timeout: float, wanted: str) -> Json:
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {wanted} in {timeout} s: {self.told[-80:]}") from None
            assert KEY not in line and "SharedAccessSignature" not in line
            try:
                told: Json = json.loads(line)
            except ValueError:
                if self.prints:
                    continue
                time.sleep(0.2)
                rest = [self._lines.get() for _ in range(self._lines.qsize())]
                raise AssertionError(f"not an event: {line}{''.join(rest)}") from None
            self.told.append(told)
            if holds(told):
                return told

    def outcome(self, number: int, timeout: float = 20) -> Json:
        """What came of an order, whether it was told already or not; not an error."""
        for told in self.told:
            if told.get("number") == number:
                break
        else:
            told = self._wait(
                lambda told: told.get("number") == number, timeout, f"outcome of {number}"
            )
        assert told["event"] != "error", told
        return told


def connection_string(port: int, host: str = "localhost") -> str:
    return f"HostName={host}:{port};DeviceId=dev;SharedAccessKey={KEY}"
