"""The `vedette` command."""

from __future__ import annotations

from typing import Annotated

import typer

from vedette_tools import __version__
from vedette_tools.commands import (
    boards,
    demo,
    deploy,
    device,
    doctor,
    estimate,
    flash,
    fleet,
    hub,
    monitor,
    project,
    provision,
    run,
    simulate,
    twin,
)

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)

PANELS = {
    "A project and its board": (
        boards.boards,
        project.init,
        project.check,
        estimate.estimate,
        flash.flash,
        provision.provision,
        deploy.deploy,
        monitor.monitor,
        run.run,
        doctor.doctor,
        deploy.uninstall,
    ),
    "Without a board": (simulate.simulate, demo.demo),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command(rich_help_panel="Many boards", context_settings=fleet.SETTINGS)(fleet.fleet)
HUB = "The hub"
app.add_typer(hub.app, name="hub", rich_help_panel=HUB)
app.add_typer(device.app, name="device", rich_help_panel=HUB)
app.add_typer(twin.app, name="twin", rich_help_panel=HUB)
app.command(rich_help_panel=HUB)(hub.events)
app.command(name="method", rich_help_panel=HUB)(device.call)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vedette {__version__}")
        raise typer.Exit


@app.callback()
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


def main() -> None:
    app()
