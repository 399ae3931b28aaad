"""`vedette run`: from a board in its box to one that is watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette_tools import flashing, project
from vedette_tools.board_link import find_port
from vedette_tools.commands.deploy import put, told
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.monitor import watch
from vedette_tools.commands.options import AsJson, Port, Project


@user_errors
def run(
    folder: Project = Path("."),
    firmware: Annotated[
        Path | None, typer.Option(help="MicroPython for the board: flash it first.")
    ] = None,
    port: Port = None,
    as_json: AsJson = False,
) -> None:
    """Flash (with --firmware), deploy, and show what the board says until Ctrl-C."""
    made = project.load(folder)
    target = find_port(port)
    if firmware:
        flashing.flash(made.board, firmware, target, erase=False)
    report = put(target, made)
    typer.echo(told(report, as_json=as_json))
    watch(target, reset=False, as_json=as_json)
