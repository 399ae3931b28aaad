"""Figures of the whole agent: size of its code, heap, and what the main job needs at least."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from agentbench import der, running_hub
from hubfixture import LocalHub
from measures import Budget, Samples, command, device, measure
from vedette_tools import mpy
from vedette_tools.connection import NotFound

# What a board loads in place of `mpy.HOST_ONLY`, which the simulated one of the 32-bit lane does.
BOARD_PORT = ("nettap/board.mpy", "vedette/ports/board.mpy")
BOARD = "armv7m"
FACTOR = 240
DEVICE = "bench"
TWIN = {
    "microAgent": {
        "CollectorsCore_PriorityIntervals": "5,30,60",
        "NetworkActivity_MessageFrequency": "High",
        "NetworkActivity_OverflowPolicy": "DropNew",
        "Statistics_MessageFrequency": "Medium",
    }
}
HEAP_STEP = 1024
IDLE_WARM_UP_S = 5
IDLE_S = 10
IDLE_RUNS = 3
SOAK_INTERVALS = 100_000
FIRST_ACK_PAIRS = 9
SDK = mpy.ROOT / "build/sdk/bin/python"
SDK_ADDRESS = "127.0.0.5"  # device SDKs know no port but 8883


@measure(
    Budget("agent.heap_steady", "B", 56 * 1024),
    Budget("agent.heap_steady_ram", "B", 88 * 1024),
    Budget("agent.mpy_bytes", "B", 48 * 1024, ci=71_100),
)
def heap() -> Samples:
    with tempfile.TemporaryDirectory() as folder, running_hub(Path(folder)) as hub:
        job = Job(hub, Path(folder))
        from_files = job.hour(f"path:{job.code}")
        return {
            "agent.heap_steady": job.hour(f"romfs:{job.image}")["heap"],
            "agent.heap_steady_ram": from_files["heap"],
            "agent.mpy_bytes": [mpy_bytes(from_files["files"])],
        }


@measure(Budget("agent.heap_min", "B", 80 * 1024))
def least_heap() -> Samples:
    with tempfile.TemporaryDirectory() as folder, running_hub(Path(folder)) as hub:
        job = Job(hub, Path(folder))
        least = job.least_heap(f"romfs:{job.image}")
        return {"agent.heap_min": [least - job.image.stat().st_size]}


def mpy_bytes(files: list[str]) -> int:
    """The size of these .mpy files, compiled for a board."""
    folder = mpy.compile_all(BOARD)
    names = {name.lstrip("/") for name in files} - set(mpy.HOST_ONLY) | set(BOARD_PORT)
    return sum((folder / name).stat().st_size for name in names)


@measure(
    Budget("agent.day_units", "units", 24),
    Budget("journal.day_erases", "blocks", 32),
    Budget("journal.written_per_sent", "B/B", 1),
)
def day() -> Samples:
    result = device("agent_virtual.py", "day", heap="4m")
    return {
        "agent.day_units": result["units"],
        "journal.day_erases": result["erases"],
        "journal.written_per_sent": result["written_per_sent"],
    }


@measure(Budget("agent.idle_cpu", "% of a core", 0.2, portable=False))
def idle_cpu() -> Samples:
    with tempfile.TemporaryDirectory() as folder, running_hub(Path(folder)) as hub:
        arguments = (hub.create_device("idle"), str(der(hub.ca, Path(folder))))
        words, environment = command("agent_idle.py", *arguments, compiled=True)
        with subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the agent did not connect")
            time.sleep(IDLE_WARM_UP_S)
            samples = []
            for _ in range(IDLE_RUNS):
                before = cpu_seconds(process.pid)
                time.sleep(IDLE_S)
                samples.append((cpu_seconds(process.pid) - before) / IDLE_S * 100)
            process.kill()
    return {"agent.idle_cpu": samples}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, from proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@measure(Budget("agent.first_ack", "x", 0.7))
def first_ack() -> Samples:
    if not SDK.exists():
        raise RuntimeError("Microsoft's SDK is not there: make build/sdk/done")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_hub(Path(folder), listen=SDK_ADDRESS, ports=(8883, 0)) as hub,
    ):
        arguments = (hub.create_device("first"), str(der(hub.ca, Path(folder))))
        ours, environment = command("agent_first_ack.py", *arguments, compiled=True)
        script = Path(__file__).with_name("sdk_first_ack.py")
        theirs = [str(SDK), str(script), hub.create_device("sdk"), str(hub.ca)]
        return {
            "agent.first_ack": [
                until_acknowledged(ours, Path(folder), environment)
                / until_acknowledged(theirs, Path(folder))
                for _ in range(FIRST_ACK_PAIRS)
            ]
        }


def until_acknowledged(
    words: list[str], folder: Path, environment: dict[str, str] | None = None
) -> float:
    """Seconds from a program's start until it says that its message is acknowledged. Errors:
    RuntimeError, with what it logged."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        with subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            took = time.perf_counter() - began
        if line != "acknowledged\n":
            log.seek(0)
            raise RuntimeError(f"{words[1]} had nothing acknowledged: {log.read()[-2000:]}")
    return took


@measure(Budget("soak.heap_slope", "B", 0))
def soak() -> Samples:
    heap = device("agent_virtual.py", "soak", str(SOAK_INTERVALS), heap="2m", limit=1200)["heap"]
    # What every interval leaves behind would be in each half; the first tenth warms up.
    first, last = heap[1:5], heap[-4:]
    return {"soak.heap_slope": [max(0.0, min(last) - max(first))]}


class Job:
    """The main job on the 32-bit lane."""

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        self.hub = hub
        self.connection_string = hub.create_device(DEVICE)
        hub.set_twin(DEVICE, TWIN)
        self.ca = der(hub.ca, folder)
        self.code = mpy.compile_all("x86")
        # As a board has its application: source would leave the names of all its variables.
        self.application = folder / "application"
        self.application.mkdir()
        for script in (
            Path(__file__).parent / "device/agent_hour.py",
            Path(__file__).parent / "device/romcode.py",
            mpy.ROOT / "tests/device/warp.py",
        ):
            target = self.application / script.with_suffix(".mpy").name
            target.write_bytes(mpy.compiled(script, "x86"))
        self.image = mpy.romfs("x86")

    def hour(self, code: str, heap: str = "1m") -> dict[str, list[Any]]:
        """What agent_hour.py prints; the connection is cut three times."""
        arguments = (str(FACTOR), code, self.connection_string, str(self.ca))
        stop = threading.Event()
        kicker = threading.Thread(target=self._kick, args=(stop,))
        kicker.start()
        try:
            result = device(
                "agent_hour", *arguments, lane="32", heap=heap, folder=self.application
            )
        finally:
            stop.set()
            kicker.join()
        (acknowledged,), (connects,) = result["acknowledged"], result["connects"]
        if acknowledged < 10 or connects < 3 or result["job_errors"] != [0]:
            raise RuntimeError(f"the main job did not do its work: {result}")
        return result

    def _kick(self, stop: threading.Event) -> None:
        while not stop.wait(3600 / FACTOR / 4):
            with contextlib.suppress(NotFound):  # it is away: it was cut just now
                self.hub.kick(DEVICE)

    def least_heap(self, code: str) -> int:
        """The smallest -X heapsize in which the job runs, by bisection."""
        fails, works = 64 * HEAP_STEP, 400 * HEAP_STEP
        while works - fails > HEAP_STEP:
            middle = (fails + works) // 2 // HEAP_STEP * HEAP_STEP
            try:
                self.hour(code, str(middle))
                works = middle
            except (RuntimeError, subprocess.TimeoutExpired):
                fails = middle
        return works
