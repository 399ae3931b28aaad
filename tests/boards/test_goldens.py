"""What every command says of itself, as errors, and as JSON: byte by byte, plain, 80 columns wide.

After a change that is meant, write them anew and look at the difference:
VEDETTE_GOLDENS=write .venv/bin/python -m pytest tests/boards/test_goldens.py -m ""
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from deskfixture import Desk
from hubfixture import LocalHub, hub, wait_for  # noqa: F401 - fixture
from test_provision import at_hub  # noqa: F401 - fixture
from typer.testing import CliRunner
from vedette_tools.cli import build

GOLDENS = Path(__file__).with_name("goldens")
PLAIN = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
PROJECT = 'board = "RPI_PICO_W"\ndevice = "d"\n\n[settings]\nProcess_CacheSize = 64\nX_Y = 1\n'

# Neither a board nor a hub is there.
SAID = {
    "version": "--version",
    "misspelt command": "bords",
    "misspelt option": "boards --jason",
    "boards": "boards",
    "one board": "boards RPI_PICO_W",
    "one board as JSON": "boards RPI_PICO_W --json",
    "misspelt board": "boards ESP32GENERIC",
    "misspelt board as JSON": "boards ESP32GENERIC --json",
    "flash by hand, dfu": "flash NUCLEO_F767ZI",
    "flash by hand, uf2": "flash RPI_PICO_W firmware.uf2",
    "flash by hand, as JSON": "flash RPI_PICO_W --json",
    "flash without a file": "flash ESP32_GENERIC",
    "flash what is not there": "flash ESP32_GENERIC none.bin --port /none",
    "flash what is no firmware": "flash ESP32_GENERIC project/config.toml --port /none",
    "init over another": "init project --board unix --device d",
    "init unasked": "init other",
    "check": "check project",
    "check as JSON": "check project --json",
    "check nothing": "check other",
    "estimate a wrong project": "estimate project",
    "deploy a wrong project": "deploy project --port /none",
    "deploy without a board": "deploy --port /none",
    "deploy without a board, as JSON": "deploy --port /none --json",
    "uninstall without a board": "uninstall --port /none",
    "monitor a wrong level": "monitor --level warn --port /none",
    "provision a wrong project": "provision project --port /none",
    "run a wrong project": "run project --port /none",
    "doctor without a board": "doctor --port /none",
    "doctor without a board, as JSON": "doctor --port /none --json",
    "fleet without a list": "fleet none.csv check",
    "fleet, wrong command": "fleet none.csv twin",
    "twin without a hub": "twin get d",
    "twin without a hub, as JSON": "twin set d a=1 --json",
    "twin set of what is no pair": "twin set d a --json",
    "device without a hub, as JSON": "device show d --json",
    "hub fault without a hub, as JSON": "hub fault outage --json",
    "events without a hub": "events",
    "method without a hub": "method d name",
    "simulate which device": "simulate",
    "simulate which device, as JSON": "simulate --json",
}  # fmt: skip


def same(name: str, text: str) -> None:
    """The text is that of the golden file."""
    path = GOLDENS / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("VEDETTE_GOLDENS") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no {path}; see the top of this file"
    assert text == path.read_text()


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


ROOT_COMMAND = typer.main.get_command(build())
ALL = [path for path, _ in commands(ROOT_COMMAND)]
LEAVES = [path for path, command in commands(ROOT_COMMAND) if not hasattr(command, "commands")]


def said(*words: str) -> str:
    result = CliRunner().invoke(build(), list(words), env=PLAIN, prog_name="vedette")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return f"{result.stdout}{result.stderr}exit code {result.exit_code}\n"


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "vedette")
def test_help(path: tuple[str, ...]) -> None:
    same("help/" + ("-".join(path) or "vedette"), said(*path, "--help"))


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEDETTE_HUB_STATE", "none")
    monkeypatch.delenv("VEDETTE_HUB", raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.toml").write_text(PROJECT)
    (tmp_path / "project" / "app.py").write_text("")
    same("said/" + name, said(*SAID[name].split()))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    command = dict(commands(ROOT_COMMAND))[path]
    assert any("--json" in each.opts for each in command.params)


def test_no_golden_is_left_over() -> None:
    helps = {"-".join(path) or "vedette" for path in ALL}
    assert {each.stem for each in (GOLDENS / "help").iterdir()} == helps
    assert {each.stem for each in (GOLDENS / "said").iterdir()} == set(SAID)


def shape(value: Any) -> Any:
    """What a JSON value is, without what changes from run to run."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(shape(each)) for each in value})
    return value if value is None or isinstance(value, bool) else type(value).__name__


@pytest.mark.slow
def test_json_of_commands_with_a_board_and_a_hub(desk: Desk, at_hub: LocalHub) -> None:  # noqa: F811
    project = str(desk.project)
    (desk.project.parent / "list.csv").write_text(f"device,port\nd,{desk.board.port}\n")
    desk.vedette("provision", project)
    desk.write_app("second")
    found = {}
    for words in (
        f"provision {project}", f"deploy {project} --dry-run", f"deploy {project}",
        f"deploy {project}", "doctor", f"estimate {project}", f"check {project}",
        "twin diff board", "method board getStatus", "hub kick board",
        f"fleet --json {desk.project.parent}/list.csv doctor", "uninstall",
        "device create d2", "device create d2 --module m", "device show d2",
        "device send d2 hello", "device enrol d3", "twin get d2", "twin set d2 a.b=1",
        "hub statistics", "hub fault throttle --for 0.1", "hub fault clear",
        "device delete d2",
    ):  # fmt: skip
        if words.startswith("method"):
            wait_for(lambda: at_hub.connected("board"), bool)
        text = desk.vedette(*words.split(), *([] if "--json" in words else ["--json"]))
        name = re.sub(r"/\S+/", "", words)
        found[f"{name} {len(found)}"] = shape(json.loads(text))
    same("shapes", json.dumps(found, indent=1, sort_keys=True))
