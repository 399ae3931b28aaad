"""`vedette flash`: MicroPython itself onto a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools import boards, flashing
from vedette_tools.board_link import find_port
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port


@user_errors
def flash(
    board: Annotated[
        str,
        typer.Argument(
            help="Which board, as `vedette boards` lists.", autocompletion=boards.names
        ),
    ],
    firmware: Annotated[
        Path | None, typer.Argument(help="The file from the board's maker; see the board's url.")
    ] = None,
    port: Port = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Erase all of the flash first, files too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write MicroPython's firmware onto a board, or say how where no tool can.

    Espressif's chips are written by esptool, at the offset that the board wants; an image for
    another chip is refused.
    """
    chosen = boards.load(board)
    if chosen.method == "esptool" and firmware:
        target = find_port(port)
        flashing.flash(chosen, firmware, target, erase=erase)
        report: dict[str, Any] = {"board": board, "port": target, "state": "flashed"}
        text = f"{firmware.name} is on the board at {target}. Next: `vedette provision`"
    else:
        todo = flashing.steps(chosen, firmware)
        report = {"board": board, "state": "by hand", "steps": todo}
        text = "\n".join(f"{number}. {step}" for number, step in enumerate(todo, 1))
    typer.echo(json.dumps(report) if as_json else text)
