"""`vedette monitor`: what a board says, as it says it."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from typing import Annotated

import serial
import typer
from rich.console import Console
from rich.text import Text

from vedette_tools.board_link import BAUD, find_port, read_lines
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port
from vedette_tools.errors import USAGE, CommandError, did_you_mean

LEVELS = ("error", "warning", "info")
STYLES = {"error": "red", "warning": "yellow", "info": "green"}
PREFIX = "vedette "
RETRY_S = 0.2
RESTART = b"\r\x03\x02\x04"  # interrupt, the friendly REPL, a soft reset


@user_errors
def monitor(
    port: Port = None,
    level: Annotated[
        str,
        typer.Option(
            help="Of the agent's lines: error, warning (and errors), info (all).",
            autocompletion=lambda: list(LEVELS),
        ),
    ] = "info",
    reset: Annotated[bool, typer.Option("--reset", help="Start the board anew first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a board says until Ctrl-C; wait for it when it is unplugged."""
    if level not in LEVELS:
        raise CommandError(
            f"{level!r} is no level", next_step=did_you_mean(level, LEVELS), code=USAGE
        )
    shown = LEVELS[: LEVELS.index(level) + 1]
    watch(find_port(port), shown, reset=reset, as_json=as_json)


def watch(port: str, shown: tuple[str, ...] = LEVELS, *, reset: bool, as_json: bool) -> None:
    """Shows the agent's lines of these levels, and all of the application's, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        _show(port, shown, reset=reset, as_json=as_json)


def _show(port: str, shown: tuple[str, ...], *, reset: bool, as_json: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines(port, reset=reset):
        severity, text = parse(line)
        if severity and severity not in shown:
            continue
        if as_json:
            typer.echo(as_document(line))
        else:
            console.print(styled(severity, text))


def styled(severity: str | None, text: str) -> Text:
    return Text(f"{severity:7} ", STYLES[severity]) + Text(text) if severity else Text(text)


def as_document(line: str) -> str:
    """A board's line, for a program."""
    severity, text = parse(line)
    return json.dumps({"time": time.time(), "level": severity, "text": text})


def parse(line: str) -> tuple[str | None, str]:
    """The level and text of one of the agent's lines; None and the line where it is another's."""
    severity, colon, text = line.removeprefix(PREFIX).partition(": ")
    if line.startswith(PREFIX) and colon and severity in LEVELS:
        return severity, text
    return None, line


def lines(port: str, *, reset: bool) -> Iterator[str]:
    """What a board says, for ever; tells where the line was lost, and goes on when it is back."""
    lost = False
    while True:
        try:
            with serial.Serial(port, BAUD) as line:
                if lost:
                    yield f"-- {port} is back --"
                elif reset:
                    line.write(RESTART)
                lost = False
                yield from read_lines(line, math.inf)
        except OSError:
            if not lost:
                yield f"-- {port} is not there; waiting for it --"
            lost = True
            time.sleep(RETRY_S)
