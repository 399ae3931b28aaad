"""`vedette provision`: a board becomes a device of the hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette_tools import enrolment, project, provisioning
from vedette_tools.board_link import BoardLink, find_port
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, Port, Project
from vedette_tools.commands.progress import busy
from vedette_tools.connection import HubConnection
from vedette_tools.errors import USAGE, CommandError
from vedette_tools.roots import der_files

if TYPE_CHECKING:
    from vedette_tools.device_certificate import DeviceCertificate

PASSWORD = "VEDETTE_WIFI_PASSWORD"

Json = dict[str, Any]


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
    certificate: Annotated[
        Path | None,
        typer.Option(help="It has this X.509 certificate (PEM or DER) instead of a key."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="The certificate's private key (PEM or DER).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the device at the hub unless it is there, set its twin, and write the board's
    config.json.

    Where config.toml has [provisioning], the device asks that service for its hub. Its key is
    VEDETTE_DPS_KEY, or derived from its group's, VEDETTE_DPS_GROUP_KEY; without them, it is
    enrolled at the local hub.

    With --certificate and --key the hub knows the device by its certificate, and both go onto the
    board. With [provisioning], the local hub enrols it; elsewhere its enrolment, or its group's,
    has to be there.

    The key goes where no file shows it, if the board has such a place: the NVS of an ESP32. The
    Wi-Fi's password is asked for, or read from VEDETTE_WIFI_PASSWORD.
    """
    own = _own(certificate, key)
    made = project.load(folder)
    name = device or made.device
    roots = der_files(ca)
    password = _password(made)
    target = find_port(port)
    with busy(f"provisioning {name}"), BoardLink(target) as link:
        provisioning.check_board(made.board, link.facts(), target)
        identity, where = (_enrolled if made.provisioning else _created)(made, name, own)
        place = provisioning.configure(link, made, identity, password, roots, own)
    if as_json:
        report = {"device": name, "module": made.module, **where, "port": target, "key": place}
        typer.echo(json.dumps(report))
        return
    if made.provisioning:
        typer.echo(f"{name} asks the provisioning service {where['scope']} for its hub;", nl=False)
    else:
        typer.echo(f"{name} is a device of {where['hub']};", nl=False)
    typer.echo(f" its key is in the board's {place}")
    if place != provisioning.IN_NVS:
        typer.echo("Whoever holds the board can read that file: this chip has no other place")
    if made.settings and not where["settings"]:
        typer.echo(
            "Its [settings] are for its enrolment's initial twin, or for `vedette twin set`"
        )


def _own(certificate: Path | None, key: Path | None) -> DeviceCertificate | None:
    if not (certificate and key):
        if certificate or key:
            raise CommandError("give both, --certificate and --key", code=USAGE)
        return None
    from vedette_tools import device_certificate  # takes long to import

    return device_certificate.load(certificate, key)


def _created(made: project.Project, name: str, own: DeviceCertificate | None) -> tuple[Json, Json]:
    """The identity of a device of the hub, and what to report of it."""
    hub = HubConnection.find()
    connection_string = provisioning.identity(hub, name, made.module, own)
    provisioning.set_twin(hub, name, made.module, made.settings)
    return {"connection_string": connection_string}, {"hub": hub.host, "settings": True}


def _enrolled(
    made: project.Project, name: str, own: DeviceCertificate | None
) -> tuple[Json, Json]:
    """The same of one that the provisioning service gives its hub."""
    service = made.provisioning or {}
    if own:
        registration, settings = enrolment.by_certificate(service, name, made.settings, own)
    else:
        known = enrolment.given(service, name)
        registration = known or enrolment.made(service, name, made.settings)
        settings = known is None
    return {"provisioning": registration}, {"scope": service["scope"], "settings": settings}


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
