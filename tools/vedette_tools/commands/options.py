"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools.errors import CommandError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Port = Annotated[
    str | None,
    typer.Option(
        "--port", "-p", envvar="VEDETTE_PORT", help="The board's serial port; else the only one."
    ),
]
Project = Annotated[Path, typer.Argument(help="The project's folder, with config.toml.")]


def show(document: Any, *, as_json: bool) -> None:
    """Print what is JSON for a person too: for a program, on one line."""
    typer.echo(json.dumps(document, indent=None if as_json else 2))


def done(state: str, *, as_json: bool) -> None:
    """Tell a program what was done; a person sees no error."""
    if as_json:
        typer.echo(json.dumps({"state": state}))


def key_and_value(pair: str) -> tuple[str, str]:
    """The parts of KEY=VALUE. Errors: CommandError."""
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise CommandError(f"{pair!r} is not KEY=VALUE")
    return key, value
