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
Project = Annotated[Path, typer.Argument(help="The project's folder, with config.toml.")]
