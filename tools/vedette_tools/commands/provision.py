"""`vedette provision`: a board becomes a device of the hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vedette_tools import project, provisioning
from vedette_tools.board_link import BoardLink, find_port
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port, Project
from vedette_tools.connection import HubConnection
from vedette_tools.errors import CommandError
from vedette_tools.roots import der_files

PASSWORD = "VEDETTE_WIFI_PASSWORD"


@user_errors
def provision(
    folder: Project = Path("."),
    port: Port = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Another id than the project's.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="The hub's root certificates, PEM; else VEDETTE_HUB_CA.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the device at the hub unless it is there, set its twin, and write the board's
    config.json.

    Its key goes where no file shows it, if the board has such a place: the NVS of an ESP32. The
    Wi-Fi's password is asked for, or read from VEDETTE_WIFI_PASSWORD.
    """
    made = project.load(folder)
    name = device or made.device
    roots = der_files(ca)
    password = _password(made)
    target = find_port(port)
    hub = HubConnection.find()
    with BoardLink(target) as link:
        provisioning.check_board(made.board, link.facts(), target)
        connection_string = provisioning.identity(hub, name, made.module)
        provisioning.set_twin(hub, name, made.module, made.settings)
        hidden = provisioning.configure(link, made, connection_string, password, roots)
    where = "NVS" if hidden else "config.json"
    report = {"device": name, "module": made.module, "hub": hub.host, "port": target, "key": where}
    if as_json:
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"{name} is a device of {hub.host}; its key is in the board's {where}")


def _password(made: project.Project) -> str:
    if made.config.get("network", {}).get("type") != "wifi":
        return ""
    if (given := os.environ.get(PASSWORD)) is not None:
        return given
    if not sys.stdin.isatty():
        raise CommandError(
            "the Wi-Fi's password is not given",
            next_step=f"set {PASSWORD}; to the empty string for an open network",
        )
    return str(
        typer.prompt("password of the Wi-Fi", hide_input=True, default="", show_default=False)
    )
