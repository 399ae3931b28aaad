"""What a measure is, and how device code is run for one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import LANES, device_environment  # noqa: E402
from vedette_tools import mpy  # noqa: E402

Samples = Mapping[str, Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Budget:
    """One figure's promise: `limit` is the most it may be, or the least where `at_least` is set.

    `portable`: it does not depend on the machine's speed, so that CI can hold it. `ci` is what CI
    holds it to in place of `limit`: where it is over, so that it does not get worse unseen, or so
    near that a busy machine would break it.
    """

    name: str
    unit: str
    limit: float
    at_least: bool = False
    portable: bool = True
    ci: float | None = None

    @property
    def text(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def fails_ci(self, value: float) -> bool:
        if self.holds(value) or not self.portable:
            return False
        return self.ci is None or (value < self.ci if self.at_least else value > self.ci)


@dataclasses.dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    budget: str
    ok: bool
    runs: int
    min: float
    max: float
    fails_ci: bool

    def record(self) -> dict[str, object]:
        record = dataclasses.asdict(self)
        del record["fails_ci"]
        return record


@dataclasses.dataclass(frozen=True)
class Measure:
    function: Callable[[], Samples]
    budgets: tuple[Budget, ...]

    @property
    def names(self) -> list[str]:
        return [budget.name for budget in self.budgets]


registry: list[Measure] = []


def measure(*budgets: Budget) -> Callable[[Callable[[], Samples]], Callable[[], Samples]]:
    """Register a function that returns the samples of one or more figures."""

    def register(function: Callable[[], Samples]) -> Callable[[], Samples]:
        registry.append(Measure(function, budgets))
        return function

    return register


def command(
    script: str,
    *arguments: str,
    lane: str = "64",
    heap: str = "",
    compiled: bool = False,
    folder: Path | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that run tests/bench/device/SCRIPT on MicroPython.

    With `compiled` the device code is loaded as .mpy, as a board does, else from its sources. With
    `folder` SCRIPT is a module that was compiled into that folder, where all is that it imports.
    Errors: RuntimeError when the lane is missing.
    """
    program = LANES[lane]
    if not program.exists():
        raise RuntimeError(f"no {lane}-bit MicroPython: make setup-32")
    environment = device_environment()
    if compiled:
        code = mpy.compile_all(mpy.architecture(program))
        environment["MICROPYPATH"] = f"{code}:{environment['MICROPYPATH']}"
    options = ["-X", f"heapsize={heap}"] if heap else []
    if folder:
        environment["MICROPYPATH"] = f"{folder}:.frozen"
        return [str(program), *options, "-m", script, *arguments], environment
    path = str(ROOT / "tests/bench/device" / script)
    return [str(program), *options, path, *arguments], environment


def device(
    script: str,
    *arguments: str,
    lane: str = "64",
    heap: str = "",
    limit: int = 120,
    compiled: bool = False,
    folder: Path | None = None,
) -> dict[str, list[float]]:
    """Run a script as `command` says; it prints one JSON object of samples.

    Errors: RuntimeError with the script's output when it fails or the lane is missing.
    """
    words, environment = command(
        script, *arguments, lane=lane, heap=heap, compiled=compiled, folder=folder
    )
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            words, cwd=place, env=environment, capture_output=True, text=True, timeout=limit
        )
    if done.returncode:
        raise RuntimeError(f"{script} on {lane} bit: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    result: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return result
