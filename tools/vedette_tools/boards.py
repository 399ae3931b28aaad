"""The boards there are: `boards/<BOARD>/board.toml`, checked against `schema/board.json`."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedette_tools.errors import INVALID, CommandError, did_you_mean

FOLDER = Path(__file__).resolve().parents[2] / "boards"
SCHEMA = Path(__file__).with_name("schema") / "board.json"

WATCHDOG_MAX_S = 65535  # as the agent takes it


@dataclass(frozen=True)
class Board:
    """One board. Sizes in bytes; `flash_offset` is where esptool writes the firmware, `storage`
    what its file system has of the flash."""

    name: str
    product: str
    maker: str
    port: str
    chip: str
    machine: str
    mpy_arch: str | None
    interfaces: tuple[str, ...]
    method: str
    firmware: str
    url: str
    flash_offset: int | None
    flash: int | None
    heap: int
    storage: int | None
    filesystem: str
    processes: bool
    watchdog_max: int
    mpy_budget: int
    heap_budget: int

    def refusals(self, config: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
        """What of a device's config.json and of its twin this board cannot have, and why."""
        found = {}
        for key in settings:
            if key.startswith("Process_") and not self.processes:
                found[key] = f"{self.name} has no processes: only Linux has"
        kind = config.get("network", {}).get("type")
        if kind and kind not in self.interfaces:
            found["network.type"] = f"{self.name} has {' and '.join(self.interfaces)}, no {kind}"
        watchdog = config.get("watchdog", 0)  # of any type: that is for the agent to refuse
        if isinstance(watchdog, int) and watchdog > self.watchdog_max:
            found["watchdog"] = f"the watchdog of {self.name} waits {self.watchdog_max} s at most"
        return found

    def is_it(self, port: str, machine: str) -> bool:
        """Whether a board that says this may be one of these; variants differ in their name."""
        return self.port == port and (
            machine.startswith(self.machine) or machine.endswith(f"with {self.chip.upper()}")
        )


def names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/board.toml"))


def load(name: str) -> Board:
    """Errors: CommandError for a board that is not there, or whose description is wrong."""
    path = FOLDER / name / "board.toml"
    if name not in names():
        raise CommandError(
            f"there is no board {name!r}",
            why=did_you_mean(name, names()),
            next_step="`vedette boards` lists them",
            code=INVALID,
        )
    return parse(name, path.read_text(), path)


def parse(name: str, text: str, path: Path) -> Board:
    """Errors: CommandError, with the key at fault."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{path} is not TOML", why=str(error), code=INVALID) from None
    if why := _fault(document):
        raise CommandError(f"{path} describes no board", why=why, code=INVALID)
    firmware, memory, features = document["firmware"], document["memory"], document["features"]
    return Board(
        name=name,
        product=document["product"],
        maker=document["maker"],
        port=document["port"],
        chip=document["chip"],
        machine=document["machine"],
        mpy_arch=document.get("mpy_arch"),
        interfaces=tuple(document["interfaces"]),
        method=firmware["method"],
        firmware=firmware["file"],
        url=firmware["url"],
        flash_offset=firmware.get("offset"),
        flash=memory.get("flash"),
        heap=memory["heap"],
        storage=memory.get("storage"),
        filesystem=memory["filesystem"],
        processes=features["processes"],
        watchdog_max=features.get("watchdog_max", WATCHDOG_MAX_S),
        mpy_budget=document["budgets"]["mpy"],
        heap_budget=document["budgets"]["heap"],
    )


def recognise(port: str, machine: str) -> Board | None:
    """The board that says this of itself (sys.platform, sys.implementation._machine)."""
    found = [board for board in map(load, names()) if board.is_it(port, machine)]
    exact = [board for board in found if machine.startswith(board.machine)]
    return next(iter(exact or found), None)


def _fault(document: dict[str, Any]) -> str | None:
    import jsonschema  # takes a fifth of a second, and most commands ask for no board

    schema = json.loads(SCHEMA.read_bytes())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
        place = ".".join(str(part) for part in error.absolute_path)
        return f"{place}: {error.message}" if place else str(error.message)
    return None
