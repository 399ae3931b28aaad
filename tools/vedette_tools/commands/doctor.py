"""`vedette doctor`: what is not well, and what to do."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vedette_tools import doctor as examiner
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port
from vedette_tools.commands.progress import busy
from vedette_tools.errors import FAILED

STYLES = {
    examiner.GOOD: "green",
    examiner.WARNING: "yellow",
    examiner.BAD: "red",
    examiner.SKIPPED: "dim",
}


@user_errors
def doctor(port: Port = None, as_json: AsJson = False) -> None:
    """Look at the board, its configuration and the hub. Fails when something is bad."""
    with busy("looking at the board and the hub"):
        found = list(examiner.examine(port))
    if as_json:
        typer.echo(json.dumps({"findings": [dataclasses.asdict(each) for each in found]}))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for each in found:
            says = f"{each.says}\nnext: {each.next_step}" if each.next_step else each.says
            table.add_row(each.name, Text(each.state, STYLES[each.state]), says)
        Console(highlight=False).print(table)
    if any(each.state == examiner.BAD for each in found):
        raise typer.Exit(FAILED)
