"""What a configuration costs: messages and metered units a day, heap and flash on the board."""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedette_tools import deployment, mpy
from vedette_tools.boards import Board
from vedette_tools.errors import CommandError
from vedette_tools.programs import installed

MICROPYTHON = installed("micropython")
DAY_S = 86400
UNIT = 4096  # bytes the hub meters by; on the free tier
FREE_UNIT = 512
# Units a day of one hub unit, by tier: Microsoft's "IoT Hub quotas and throttling".
TIERS = (("S1", 400_000), ("S2", 6_000_000), ("S3", 300_000_000))
FREE_UNITS = 8000

# Bytes of an event in columns: without rows, and for each. Seen in messages of the agent.
ENVELOPE = 130
SIZES = {
    "NetworkActivity": (470, 44),
    "Process": (260, 100),
    "SystemInformation": (1020, 0),
    "Baseline": (380, 200),
    "ListeningPorts": (300, 30),
    "Heartbeat": (265, 0),
    "Statistics": (810, 0),
}
OBJECTS = 3.5  # objects take so many times the bytes of columns

# Heap on 32 bit with .mpy loaded from files: of `make bench`, agent.heap_steady_ram, and for what
# is loaded in passing as much as heap_min is above heap_steady; less table and outbox.
AGENT_HEAP = 90_000
SLOT = 48
SLOTS = 256
OUTBOX = 6144

SCHEDULE = """
import json, sys
from vedette.settings import COLLECTORS, Settings
settings = Settings({})
settings.apply(json.load(sys.stdin))
names = [name for name in COLLECTORS if not settings[name + "_Disabled"]]
print(json.dumps({
    "schedule": {name: settings.schedule(name)[1] for name in names},
    "format": settings["Message_Format"],
    "max_size": settings["Message_MaxSize"],
}))
"""


@dataclass(frozen=True)
class Load:
    """What there is to report in one interval."""

    flows: int
    processes: int
    failing: int  # checks of the baseline
    ports: int


@dataclass(frozen=True)
class Estimate:
    """For one device; sizes in bytes."""

    messages_a_day: int
    bytes_a_day: int
    units_a_day: int
    free_units_a_day: int
    tier: str  # the smallest for the whole fleet
    heap: int
    heap_of_board: int
    flash: int
    flash_of_board: int | None  # of its file system

    @property
    def heap_fits(self) -> bool:
        return self.heap < self.heap_of_board

    @property
    def flash_fits(self) -> bool:
        return self.flash_of_board is None or self.flash < self.flash_of_board


def estimate(
    board: Board, config: dict[str, Any], settings: dict[str, Any], load: Load, devices: int
) -> Estimate:
    """Errors: CommandError."""
    said = _asked(settings)
    schedule = {
        name: period
        for name, period in said["schedule"].items()
        if name != "Process" or board.processes
    }
    factor = OBJECTS if said["format"] == "objects" else 1
    sizes = {name: int(_size(name, load) * factor) for name in schedule}
    messages = _messages(schedule, sizes, said["max_size"])
    units = sum(math.ceil(size / UNIT) for size in messages)
    free = sum(math.ceil(size / FREE_UNIT) for size in messages)
    code = sum(path.stat().st_size for path in _code(board))
    return Estimate(
        messages_a_day=len(messages),
        bytes_a_day=sum(messages),
        units_a_day=units,
        free_units_a_day=free,
        tier=_tier(units * devices, free * devices),
        heap=AGENT_HEAP
        + SLOT * settings.get("NetworkActivity_CacheSize", SLOTS)
        + config.get("outbox_size", OUTBOX),
        heap_of_board=board.heap,
        flash=code * len(deployment.SLOTS),
        flash_of_board=board.storage,
    )


def _messages(schedule: dict[str, int], sizes: dict[str, int], limit: int) -> list[int]:
    """The sizes of a day's messages: what is due at one time goes together, up to the limit."""
    found = []
    if schedule:
        step = min(schedule.values())
        for now in range(step, DAY_S + 1, step):
            due = [sizes[name] for name, period in schedule.items() if now % period < step]
            size = ENVELOPE
            for each in due:
                if size + each > limit and size > ENVELOPE:
                    found.append(size)
                    size = ENVELOPE
                size += each
            if due:
                found.append(size)
    return found


def _size(name: str, load: Load) -> int:
    empty, row = SIZES[name]
    rows = {
        "NetworkActivity": load.flows,
        "Process": load.processes,
        "Baseline": load.failing,
        "ListeningPorts": load.ports,
    }
    return empty + row * rows.get(name, 0)


def _tier(units: int, free: int) -> str:
    if free <= FREE_UNITS:
        return "F1"
    for name, most in TIERS:
        if units <= most:
            return name
    name, most = TIERS[-1]
    return f"{math.ceil(units / most)} x {name}"


def _code(board: Board) -> list[Path]:
    march = board.mpy_arch or mpy.architecture(MICROPYTHON)
    return sorted(mpy.compile_all(march).rglob("*.mpy"))


def _asked(settings: dict[str, Any]) -> dict[str, Any]:
    """When each collector is due, as the agent's own code has it."""
    path = ":".join(str(mpy.ROOT / part) for part in mpy.SOURCES)
    done = subprocess.run(
        [MICROPYTHON, "-c", SCHEDULE],
        env={**os.environ, "MICROPYPATH": f"{path}:.frozen"},
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode:
        raise CommandError(
            "the agent does not take these settings", why=done.stdout[-300:].strip()
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
