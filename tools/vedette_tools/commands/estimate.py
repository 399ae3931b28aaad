"""`vedette estimate`: what a configuration costs before it runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from vedette_tools import estimate as model
from vedette_tools import project
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Project


@user_errors
def estimate(
    folder: Project = Path("."),
    devices: Annotated[int, typer.Option(min=1, help="How many devices on the hub.")] = 1,
    flows: Annotated[int, typer.Option(min=0, help="Connections in an interval.")] = 50,
    processes: Annotated[int, typer.Option(min=0, help="Processes in an interval.")] = 30,
    failing: Annotated[int, typer.Option(min=0, help="Failing checks of the baseline.")] = 3,
    ports: Annotated[int, typer.Option(min=0, help="Listening ports.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Estimate messages and metered units a day, and heap and flash on the board."""
    made = project.load(folder)
    load = model.Load(flows, processes, failing, ports)
    found = model.estimate(made.board, made.config, made.settings, load, devices)
    if as_json:
        fits = {"heap_fits": found.heap_fits, "flash_fits": found.flash_fits}
        typer.echo(json.dumps({**dataclasses.asdict(found), **fits}))
        return
    files = "the file system"
    if found.flash_of_board:
        files = f"{found.flash_of_board / 1000:.0f} KB of file system"
    advice = "" if found.flash_fits else "; freeze it into the firmware, or use its ROMFS"
    typer.echo(
        f"a device and day: {found.messages_a_day} messages, {found.bytes_a_day / 1000:.1f} KB; "
        f"{found.units_a_day} units of 4 KB, {found.free_units_a_day} of 0.5 KB (free tier)\n"
        f"{devices} device{'s' if devices > 1 else ''}: tier {found.tier} is enough\n"
        f"heap: about {found.heap / 1000:.0f} KB, {_fits(found.heap_fits)} "
        f"{found.heap_of_board / 1000:.0f} KB of {made.board.name}, application apart\n"
        f"flash: {found.flash / 1000:.0f} KB for two versions, {_fits(found.flash_fits)} "
        f"{files}{advice}"
    )


def _fits(is_so: bool) -> str:
    return "fits" if is_so else "does not fit"
