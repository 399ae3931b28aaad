"""`vedette boards`: which boards there are, and what each has."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vedette_tools import boards as registry
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson


@user_errors
def boards(
    name: Annotated[
        str | None,
        typer.Argument(help="Only this one, with all its data.", autocompletion=registry.names),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the boards that Vedette knows."""
    found = [registry.load(each) for each in ([name] if name else registry.names())]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(board) for board in found]))
    elif name:
        _show(found[0])
    else:
        _list(found)


def _list(found: list[registry.Board]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("board", "what it is", "chip", "network"):
        table.add_column(heading)
    table.add_column("heap, KB", justify="right")
    for board in found:
        network = " ".join(board.interfaces)
        table.add_row(board.name, board.product, board.chip, network, str(board.heap // 1000))
    Console().print(table)


def _show(board: registry.Board) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for field in dataclasses.fields(board):
        value = getattr(board, field.name)
        if value is not None:
            text = " ".join(value) if isinstance(value, tuple) else str(value)
            table.add_row(field.name.replace("_", " "), text)
    Console().print(table)
