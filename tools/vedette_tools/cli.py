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

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(hub.app, name="hub")
app.add_typer(device.app, name="device")
app.add_typer(twin.app, name="twin")
app.command()(boards.boards)
app.command()(project.init)
app.command()(project.check)
app.command()(flash.flash)
app.command()(doctor.doctor)
app.command()(estimate.estimate)
app.command()(provision.provision)
app.command()(deploy.deploy)
app.command()(monitor.monitor)
app.command()(run.run)
app.command(context_settings=fleet.SETTINGS)(fleet.fleet)
app.command()(deploy.uninstall)
app.command()(hub.events)
app.command(name="method")(device.call)
app.command()(simulate.simulate)
app.command()(demo.demo)


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
