"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Port = Annotated[
    str | None,
    typer.Option(
        "--port", "-p", envvar="VEDETTE_PORT", help="The board's serial port; else the only one."
    ),
]
BoardName = Annotated[
    str | None, typer.Option("--board", "-b", help="Which board it is, as `vedette boards` lists.")
]
Project = Annotated[Path, typer.Option(help="The folder with config.toml and app.py.")]
