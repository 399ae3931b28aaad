"""`vedette fleet`: a command for many devices."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vedette_tools import fleet as model
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.monitor import styled
from vedette_tools.commands.options import AsJson
from vedette_tools.errors import PARTLY, USAGE, CommandError

# Commands that end by themselves and tell what they did as JSON, and those that show lines.
COMMANDS = ("check", "deploy", "doctor", "estimate", "flash", "provision", "uninstall")
WATCHING = ("monitor", "run")
SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": True}


@user_errors
def fleet(
    devices: Annotated[Path, typer.Argument(metavar="LIST", help="CSV or YAML: device, port, …")],
    command: Annotated[
        list[str], typer.Argument(help="What to do for each; {column} is filled in.")
    ],
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="At a time.")] = 4,
    again: Annotated[
        bool, typer.Option("--again", help="For all, not only those it is not done for yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command for each device of a list, several at a time.

    After a failure or Ctrl-C, the same command goes on with the devices that are left. `monitor`
    and `run` show what all boards say, until Ctrl-C. Options stand before the list. Example:
    vedette fleet devices.csv provision --device {device}
    """
    if command[0] not in COMMANDS + WATCHING:
        raise CommandError(
            f"{command[0]!r} is no command for a fleet",
            why=f"there are {', '.join(sorted(COMMANDS + WATCHING))}",
            code=USAGE,
        )
    rows = model.read(devices)
    if command[0] in WATCHING:
        _watch(rows, command, as_json=as_json)
        return
    progress = model.Progress(devices, command)
    if again:
        progress.forget()
    done = progress.done
    left = [row for row in rows if row[model.NAME] not in done]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(command[0], total=len(left))

        def tell(outcome: model.Outcome) -> None:
            if outcome.code == 0:
                progress.add(outcome.device)
            bar.advance(task)

        outcomes = model.run(left, command, jobs, tell)
    failed = sum(outcome.code != 0 for outcome in outcomes)
    if not failed:
        progress.forget()
    _tell(rows, outcomes, as_json=as_json)
    if failed:
        raise typer.Exit(PARTLY)


def _watch(rows: list[dict[str, str]], command: list[str], *, as_json: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(row[model.NAME]) for row in rows)

    def tell(device: str, document: dict[str, Any]) -> None:
        if as_json:
            typer.echo(json.dumps({model.NAME: device, **document}))
            return
        text = document["text"] if "text" in document else model.Outcome(device, 0, document).says
        console.print(Text(f"{device:{width}}  ", "cyan") + styled(document.get("level"), text))

    if not model.watch(rows, command, tell):
        raise typer.Exit(PARTLY)


def _tell(rows: list[dict[str, str]], outcomes: list[model.Outcome], *, as_json: bool) -> None:
    by_name = {outcome.device: outcome for outcome in outcomes}
    table = Table(box=None, pad_edge=False)
    for heading in ("device", "code", "what"):
        table.add_column(heading)
    for row in rows:
        name = row[model.NAME]
        outcome = by_name.get(name) or model.Outcome(name, 0, {"state": "done earlier"})
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(outcome)))
        else:
            table.add_row(name, str(outcome.code), outcome.says)
    if not as_json:
        Console().print(table)
