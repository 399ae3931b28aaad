"""The `vedette` command."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from vedette_tools import __version__

BOARD, NO_BOARD, BOARDS, HUB = (
    "A project and its board",
    "Without a board",
    "Many boards",
    "The hub",
)
# Each command: its panel in the help; its module in `commands`, and its name there.
COMMANDS = {
    "boards": (BOARD, "boards", "boards"),
    "init": (BOARD, "project", "init"),
    "check": (BOARD, "project", "check"),
    "estimate": (BOARD, "estimate", "estimate"),
    "flash": (BOARD, "flash", "flash"),
    "provision": (BOARD, "provision", "provision"),
    "deploy": (BOARD, "deploy", "deploy"),
    "monitor": (BOARD, "monitor", "monitor"),
    "run": (BOARD, "run", "run"),
    "doctor": (BOARD, "doctor", "doctor"),
    "uninstall": (BOARD, "deploy", "uninstall"),
    "simulate": (NO_BOARD, "simulate", "simulate"),
    "demo": (NO_BOARD, "demo", "demo"),
    "fleet": (BOARDS, "fleet", "fleet"),
    "hub": (HUB, "hub", "app"),
    "device": (HUB, "device", "app"),
    "twin": (HUB, "twin", "app"),
    "events": (HUB, "hub", "events"),
    "method": (HUB, "device", "call"),
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vedette {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Vedette: a security micro agent for MicroPython, and its local Azure IoT Hub.

    Commands find the hub by VEDETTE_HUB (a service connection string; VEDETTE_HUB_FILE: the file
    with it) and VEDETTE_HUB_CA, else by the local hub's state directory (VEDETTE_HUB_STATE, or its
    default).
    """


def build(only: str | None = None) -> typer.Typer:
    """The command with all that are below it, or with one: what the others import takes time."""
    app = typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )
    app.callback()(_root)
    for name in [only] if only else COMMANDS:
        panel, file, attribute = COMMANDS[name]
        module = import_module(f"vedette_tools.commands.{file}")
        command = getattr(module, attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            settings = getattr(module, "SETTINGS", None)
            app.command(name, rich_help_panel=panel, context_settings=settings)(command)
    return app


def main() -> None:
    if sys.stdout is None:  # closed by the shell (`>&-`): nobody wants to read it
        sys.stdout = open(os.devnull, "w")
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    build(first if first in COMMANDS else None)()
