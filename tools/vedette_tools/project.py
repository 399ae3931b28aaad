"""A project: config.toml says which board and device, and how they are set up; app.py runs.

    board = "ESP32_GENERIC"     # as `vedette boards` lists
    device = "kitchen"          # its id at the hub; `module` beside it, if the agent is one
    [agent]                     # keys of config.json: watchdog, outbox_size, ...
    [network]                   # config.json's: type, ssid, ...; never the password
    [provisioning]              # config.json's: scope, host; never the key
    [settings]                  # keys of the twin

What config.json and the twin may hold is the agent's to say: its own code checks them, run by
MicroPython on this machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedette_tools import boards, mpy
from vedette_tools.errors import INVALID, CommandError, did_you_mean, reason
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.identity import Identity
from vedette_tools.programs import installed

CONFIG = "config.toml"
APP = "app.py"
TEXTS = ("board", "device", "module")
TABLES = ("agent", "network", "provisioning", "settings")
# What `vedette provision` adds, which this file is not to hold.
ADDED = {
    "agent": ("connection_string", "certificate"),
    "network": ("password",),
    "provisioning": ("key", "registration_id"),
}

CHECK = """
import json, sys
from vedette import config_file, validation
given = json.load(sys.stdin)
said = {"config": None, "problems": [], "keys": list(validation.keys())}
try:
    config_file.read("config.json")
except config_file.ConfigError as error:
    said["config"] = str(error)
try:
    _, problems, unknown = validation.check(given)
    said["problems"] = problems + [(key, None) for key in unknown]
except validation.Refused as error:
    said["problems"] = [("", str(error))]
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Problem:
    """What is wrong in a file of a project, and where."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Project:
    folder: Path
    board: boards.Board
    device: str
    module: str | None
    config: dict[str, Any]  # of config.json, without what `vedette provision` adds
    provisioning: dict[str, str] | None  # the service that the device asks for its hub
    settings: dict[str, Any]


def load(folder: Path) -> Project:
    """Errors: CommandError, with each problem."""
    found = check(folder)
    if found:
        raise CommandError(
            f"{folder / CONFIG} does not do" if folder.is_dir() else f"there is no {folder}",
            why="\n        ".join(map(str, found)),
            next_step="`vedette check` tells when it is right",
            code=INVALID,
        )
    document = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return Project(
        folder,
        boards.load(document["board"]),
        document["device"],
        document.get("module"),
        _config(document),
        document.get("provisioning"),
        document.get("settings", {}),
    )


def check(folder: Path) -> list[Problem]:
    """What is wrong in a project. Errors: CommandError where there is none."""
    path = folder / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"cannot read {path}",
            why=reason(error),
            next_step="`vedette init` makes one",
            code=INVALID,
        ) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line = int(at[1]) if at else len(text.splitlines())
        return [Problem(CONFIG, line, str(error))]
    finder = _Lines(text)
    found = _shape(document, finder)
    if not found:
        found = _agents(document, finder) + _boards(document, finder)
    return sorted(found, key=lambda each: each.line) + _application(folder)


def _shape(document: dict[str, Any], finder: _Lines) -> list[Problem]:
    """What is wrong with the keys of the file itself."""
    found = [
        finder.problem("", key, f"{key} is no key here; {did_you_mean(key, (*TEXTS, *TABLES))}")
        for key in sorted(set(document) - {*TEXTS, *TABLES})
    ]
    for key in TEXTS:
        if key in document and not (isinstance(document[key], str) and document[key]):
            found.append(finder.problem("", key, f"{key} must be a string"))
        elif key not in document and key != "module":
            found.append(finder.problem("", key, f'{key} is missing: {key} = "..."'))
        elif key in document and key != "board" and (why := not_an_id(document[key])):
            found.append(finder.problem("", key, f"{key}: {why}"))
    for key in TABLES:
        if not isinstance(document.get(key, {}), dict):
            found.append(finder.problem("", key, f"{key} must be a table: [{key}]"))
    board = document.get("board")
    if isinstance(board, str) and board and board not in boards.names():
        why = did_you_mean(board, boards.names())
        found.append(finder.problem("", "board", f"there is no board {board!r}; {why}"))
    return found


def not_an_id(name: str) -> str:
    """Why a hub takes no device or module of that name; empty where it does."""
    try:
        Identity.checked(name)
    except RequestError as error:
        return error.message
    return ""


def _boards(document: dict[str, Any], finder: _Lines) -> list[Problem]:
    """What the board cannot have."""
    board = boards.load(document["board"])
    refused = board.refusals(_config(document), document.get("settings", {}))
    found = []
    for key, why in refused.items():
        table, _, name = key.rpartition(".")
        table = table or ("settings" if key in document.get("settings", {}) else "agent")
        found.append(finder.problem(table, name, f"{name}: {why}"))
    return found


def _agents(document: dict[str, Any], finder: _Lines) -> list[Problem]:
    """What the agent does not take."""
    for table, keys in ADDED.items():
        for key in keys:
            if key in document.get(table, {}):
                why = f"{key}: keep it out of this file; `vedette provision` adds it"
                return [finder.problem(table, key, why)]
    if "provisioning" in document and "module" in document:
        why = "module: the provisioning service knows devices only; leave it out"
        return [finder.problem("", "module", why)]
    said = _asked(_provisioned(document), document.get("settings", {}))
    found = []
    if said["config"]:
        reason = said["config"].removeprefix("config.json: ")
        table, name = "agent", reason.split(" ")[0]
        if name in ADDED:
            table, reason = name, reason.removeprefix(f"{name} ")
            name = reason.split(" ")[0]
        says, no_key, known = reason.partition(" is no key; there are ")
        if no_key:
            own = set(known.split(", ")) - {*ADDED.get(table, ()), *TABLES}
            reason = f"{says} is no key; {did_you_mean(name, own)}"
        found.append(finder.problem(table, name, reason))
    for key, reason in said["problems"]:
        text = reason or f"is no key of the twin; {did_you_mean(key, said['keys'])}"
        found.append(finder.problem("settings", key, f"{key} {text}".strip()))
    return found


def sources(folder: Path) -> list[Path]:
    """The application's files: not those of an environment or a repository beside it."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _application(folder: Path) -> list[Problem]:
    found = []
    for path in sources(folder):
        try:
            mpy.compiled(path, "")
        except CommandError as error:
            at = re.findall(r"line (\d+)", str(error))
            last = str(error).strip().splitlines()[-1]
            name = path.relative_to(folder).as_posix()
            found.append(Problem(name, int(at[-1]) if at else 1, last))
    return found


def _config(document: dict[str, Any]) -> dict[str, Any]:
    config = dict(document.get("agent", {}))
    if "network" in document:
        config["network"] = document["network"]
    return config


def _provisioned(document: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the project, with something in the place of what is secret."""
    config = {"ca": ["x"], **_config(document)}
    if "provisioning" in document:
        added = {"registration_id": document["device"], "key": "x"}
        return {**config, "provisioning": {**document["provisioning"], **added}}
    return {**config, "connection_string": "x"}


def _asked(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What the agent's own code says of them."""
    path = ":".join(str(mpy.ROOT / part) for part in mpy.SOURCES)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config, default=str))
        done = subprocess.run(
            [installed("micropython"), "-c", CHECK],
            cwd=folder,
            env={**os.environ, "MICROPYPATH": f"{path}:.frozen"},
            input=json.dumps(settings, default=str),
            capture_output=True,
            text=True,
            timeout=30,
        )
    if done.returncode:
        raise CommandError("the agent's own check failed", why=done.stdout[-500:].strip())
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class _Lines:
    """Where keys stand in a TOML text. tomllib does not tell."""

    def __init__(self, text: str) -> None:
        self._places: dict[tuple[str, str], int] = {}
        table = ""
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\s*([\w.]+)\s*\]", line):
                table = header[1]
                self._places.setdefault(("", table), number)
            elif key := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
                self._places.setdefault((table, key[1]), number)

    def problem(self, table: str, key: str, what: str) -> Problem:
        line = self._places.get((table, key)) or self._places.get(("", table)) or 1
        return Problem(CONFIG, line, what)
