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
    flash,
    hub,
    monitor,
    project,
    provision,
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
app.command()(provision.provision)
app.command()(deploy.deploy)
app.command()(monitor.monitor)
app.command()(deploy.uninstall)
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

    Commands find the hub by VEDETTE_HUB (a service connection string) and VEDETTE_HUB_CA, else by
    the local hub's state directory (VEDETTE_HUB_STATE, or its default).
    """


def main() -> None:
    app()
