"""Collects `mpy_*.py`: tests that run on the real MicroPython, one process a file and lane.

A lane is an interpreter: `64` (the pinned unix port) or `32` (Debian's i386 build). The lanes to
run are named in VEDETTE_LANES, separated by commas; the default is `64`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["hubfixture", "deskfixture", "mainpy"]

# A shell that runs the tests in its background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
LANES = {
    "64": ROOT / ".venv" / "bin" / "micropython",
    "32": ROOT / "build" / "mpy32" / "micropython",
}
DEVICE_PATH = ":".join(
    str(ROOT / part) for part in ("tests/device", "lib", "firmware", "build/umqtt")
)
_TEST = re.compile(r"^(?:async )?def (test_\w+)\(\):", re.MULTILINE)
_TIMEOUT = re.compile(r"^# timeout: (\d+)$", re.MULTILINE)
_MARK = re.compile(r"^\x02(START|PASS|SKIP|FAIL) (\w+) ?(.*)$")


def device_environment() -> dict[str, str]:
    """The environment in which device code runs on a host: path and root of the project."""
    return {**os.environ, "MICROPYPATH": f"{DEVICE_PATH}:.frozen", "ROOT": str(ROOT)}


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> DeviceFile | None:
    if module_path.name.startswith("mpy_"):
        return DeviceFile.from_parent(parent, path=module_path)
    return None


class DeviceFile(pytest.File):
    def collect(self) -> Iterator[DeviceTest]:
        source = self.path.read_text()
        limit = _TIMEOUT.search(source)
        for lane in os.environ.get("VEDETTE_LANES", "64").split(","):
            if lane not in LANES:
                raise pytest.UsageError(
                    f"VEDETTE_LANES: {lane!r} is not one of {', '.join(LANES)}"
                )
            batch = Batch(self.path, lane, int(limit[1]) if limit else 60)
            for name in _TEST.findall(source):
                yield DeviceTest.from_parent(self, name=f"{name}[{lane}]", test=name, batch=batch)


class Batch:
    """All chosen tests of one file on one lane: run once, when the first result is asked for."""

    def __init__(self, path: Path, lane: str, limit: int) -> None:
        self.path = path
        self.lane = lane
        self.limit = limit
        self.results: dict[str, tuple[str, str]] | None = None

    def result(self, item: DeviceTest) -> tuple[str, str]:
        if self.results is None:
            chosen = [
                other.test
                for other in item.session.items
                if isinstance(other, DeviceTest) and other.batch is self
            ]
            self.results = self.run(chosen)
        return self.results.get(item.test, ("FAIL", "the test did not run"))

    def run(self, names: list[str]) -> dict[str, tuple[str, str]]:
        program = LANES[self.lane]
        if not program.exists():
            reason = (
                f"no {self.lane}-bit MicroPython at {program.relative_to(ROOT)} (make setup-32)"
            )
            return {name: ("SKIP", reason) for name in names}
        with tempfile.TemporaryDirectory() as folder:
            command = [program, ROOT / "tests/device/harness.py", self.path, *names]
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=device_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=self.limit,
                )
                output, ending = done.stdout, f"the process ended with code {done.returncode}"
            except subprocess.TimeoutExpired as late:
                output, ending = late.stdout or b"", f"no end within {self.limit} s"
        return self.read(output.decode(errors="replace"), ending, names)

    @staticmethod
    def read(output: str, ending: str, names: list[str]) -> dict[str, tuple[str, str]]:
        results: dict[str, tuple[str, str]] = {}
        text: list[str] = []
        running = None
        for line in output.splitlines():
            mark = _MARK.match(line)
            if not mark:
                text.append(line)
            elif mark[1] == "START":
                running, text = mark[2], []
            else:
                results[mark[2]] = (mark[1], mark[3] if mark[1] == "SKIP" else "\n".join(text))
                running, text = None, []
        rest = "\n".join([*text, ending])
        if running:
            results[running] = ("FAIL", rest)
        for name in names:
            results.setdefault(name, ("FAIL", f"not reached: {rest}"))
        return results


class DeviceTest(pytest.Item):
    def __init__(self, *, test: str, batch: Batch, **rest: object) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self.test = test
        self.batch = batch
        # The batch has a limit of its own; pytest's would count it against the first test.
        self.add_marker(pytest.mark.timeout(batch.limit + 30))

    def runtest(self) -> None:
        state, text = self.batch.result(self)
        if state == "SKIP":
            pytest.skip(text)
        if state == "FAIL":
            raise DeviceFailure(text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]
        if isinstance(excinfo.value, DeviceFailure):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


class DeviceFailure(Exception):
    """What the test printed on the device, its traceback included."""
