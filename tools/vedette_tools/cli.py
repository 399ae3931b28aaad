"""The `vedette` command."""

from __future__ import annotations

import typer

from vedette_tools.commands import device, hub, twin

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(hub.app, name="hub")
app.add_typer(device.app, name="device")
app.add_typer(twin.app, name="twin")


def main() -> None:
    app()
