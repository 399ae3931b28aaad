"""`vedette init` and `vedette check`: a project, from its first line until it is right."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vedette_tools import boards, project
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Project
from vedette_tools.errors import INVALID, CommandError, reason

APPLICATION = '''"""Runs beside the agent; it need not know of it."""

import asyncio


async def main():
    while True:
        print("hello")
        await asyncio.sleep(10)
'''


@user_errors
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path("."),
    board: Annotated[
        str | None, typer.Option("--board", "-b", help="The board.", autocompletion=boards.names)
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Its id at the hub.")
    ] = None,
    wifi: Annotated[
        str | None, typer.Option(help="The Wi-Fi's name; the password is asked for later.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a project: config.toml and app.py. What no option says is asked."""
    present = [name for name in (project.CONFIG, project.APP) if (folder / name).exists()]
    if present:
        raise CommandError(
            f"{folder / present[0]} is there already",
            next_step="take another folder, or edit what is there",
        )
    chosen = boards.load(board or _ask("board", "--board", "unix", boards.names()))
    kind = chosen.interfaces[0] if chosen.port != "linux" else ""
    if wifi and kind != "wifi":
        why = "this host's network is not the agent's to set up" if not kind else f"it has {kind}"
        raise CommandError(
            f"{chosen.name} joins no Wi-Fi", why=why, next_step="leave --wifi out", code=INVALID
        )
    name = device or _ask("device id", "--device", folder.resolve().name)
    if why := project.not_an_id(name):
        raise CommandError(why, next_step="give another --device", code=INVALID)
    network = ""
    if kind:
        network = f'\n[network]\ntype = "{kind}"\n'
        if kind == "wifi":
            network += f"ssid = {_quoted(wifi or _ask('Wi-Fi name', '--wifi', None))}\n"
    text = f"board = {_quoted(chosen.name)}\ndevice = {_quoted(name)}\n{network}"
    text += '\n[settings]\nCollectorsCore_PriorityIntervals = "30,120,1440"\n'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / project.CONFIG).write_text(text, encoding="utf-8")
        (folder / project.APP).write_text(APPLICATION)
    except OSError as error:
        raise CommandError(f"cannot write to {folder}", why=reason(error)) from None
    made = [str(folder / project.CONFIG), str(folder / project.APP)]
    after = [shlex.join(["vedette", each, str(folder)]) for each in ("provision", "deploy")]
    if as_json:
        typer.echo(json.dumps({"made": made, "next": after}))
    else:
        typer.echo(f"made {made[0]} and {made[1]}. Next: `{after[0]}`, then `{after[1]}`")


@user_errors
def check(folder: Project = Path("."), as_json: AsJson = False) -> None:
    """Say what is wrong in a project, with file and line."""
    problems = project.check(folder)
    if as_json:
        typer.echo(json.dumps({"problems": [dataclasses.asdict(each) for each in problems]}))
    elif problems:
        typer.echo("\n".join(f"{folder}/{each}" for each in problems))
    else:
        typer.echo(f"{folder / project.CONFIG} is right")
    if problems:
        raise typer.Exit(INVALID)


def _ask(what: str, option: str, default: str | None, choices: list[str] | None = None) -> str:
    if not sys.stdin.isatty():
        raise CommandError(f"the {what} is not given", next_step=f"give {option}")
    if choices:
        typer.echo("boards: " + ", ".join(choices))
    return str(typer.prompt(what, default=default))


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for \u: TOML has no surrogate pairs.
    return json.dumps(text, ensure_ascii=False)
