"""`vedette device`: the identities in the hub's registry."""

from __future__ import annotations

import hashlib
import json
import ssl
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools import enrolment
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, done, key_and_value, show
from vedette_tools.connection import (
    TIMEOUT_S,
    HubConnection,
    NotFound,
    identity_path,
)
from vedette_tools.errors import FAILED, CommandError
from vedette_tools.hub import strict_json

app = typer.Typer(no_args_is_help=True, help="Devices, and their modules, in the hub.")

DeviceId = Annotated[str, typer.Argument(help="The device's id.")]
Module = Annotated[str | None, typer.Option(help="A module of the device.")]


def _path(device: str, module: str | None) -> str:
    return f"/devices/{identity_path(device, module)}"


@app.command()
@user_errors
def create(
    device: DeviceId,
    module: Module = None,
    certificate: Annotated[
        Path | None, typer.Option(help="It has this X.509 certificate (PEM) instead of a key.")
    ] = None,
    ca_signed: Annotated[
        bool, typer.Option(help="It has a certificate by an authority of `vedette hub trust`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a device (with --module: a module, and its device if need be), and print its
    connection string."""
    hub = HubConnection.find()
    if module:
        try:
            hub.request("GET", _path(device, None))
        except NotFound:
            hub.request("PUT", _path(device, None), {"deviceId": device})
    body: dict[str, Any] = {"deviceId": device, **({"moduleId": module} if module else {})}
    if certificate:
        thumbprint = hashlib.sha256(_der(certificate)).hexdigest()
        prints = {"primaryThumbprint": thumbprint}
        body["authentication"] = {"type": "selfSigned", "x509Thumbprint": prints}
    elif ca_signed:
        body["authentication"] = {"type": "certificateAuthority"}
    record = hub.request("PUT", _path(device, module), body)
    connection_string = hub.device_connection_string(record)
    typer.echo(json.dumps({"connectionString": connection_string, **record}) if as_json
               else connection_string)  # fmt: skip


@app.command(name="show")
@user_errors
def show_device(device: DeviceId, module: Module = None, as_json: AsJson = False) -> None:
    """Print a device's record as JSON, with its connection string. It holds the device's keys."""
    hub = HubConnection.find()
    record = hub.request("GET", _path(device, module))
    record["connectionString"] = hub.device_connection_string(record)
    show(record, as_json=as_json)


@app.command(name="list")
@user_errors
def list_devices(as_json: AsJson = False) -> None:
    """List the devices with their modules, and whether each is connected."""
    records = HubConnection.find().request("GET", "/vedette/identities")
    if as_json:
        typer.echo(json.dumps(records))
        return
    for record in records:
        name = record["deviceId"] + (f"/{record['moduleId']}" if "moduleId" in record else "")
        typer.echo(f"{name}\t{record['connectionState'].lower()}")


@app.command()
@user_errors
def delete(device: DeviceId, module: Module = None, as_json: AsJson = False) -> None:
    """Delete a device with its modules, or one module. Its messages are kept."""
    HubConnection.find().request("DELETE", _path(device, module), headers={"If-Match": "*"})
    done("deleted", as_json=as_json)


@app.command()
@user_errors
def call(
    device: DeviceId,
    method: Annotated[str, typer.Argument(help="The method's name.")],
    payload: Annotated[str, typer.Argument(help="JSON.")] = "null",
    module: Module = None,
    timeout: Annotated[
        int, typer.Option(min=5, max=300, help="Seconds to wait for the answer.")
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Call a direct method of a connected device, and print its status and payload as JSON.

    Fails when the status is 400 or more.
    """
    body = {
        "methodName": method,
        "payload": _json(payload),
        "responseTimeoutInSeconds": timeout,
    }
    path = f"/twins/{identity_path(device, module)}/methods"
    answer = HubConnection.find().request("POST", path, body, timeout=timeout + TIMEOUT_S)
    show(answer, as_json=as_json)
    if answer["status"] >= 400:
        raise typer.Exit(FAILED)


@app.command()
@user_errors
def send(
    device: DeviceId,
    body: Annotated[str, typer.Argument(help="The message.")],
    properties: Annotated[
        list[str] | None, typer.Option("--property", "-p", help="KEY=VALUE; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a device a cloud-to-device message: now, or once it is there."""
    message = {"body": body, "properties": dict(map(key_and_value, properties or []))}
    HubConnection.find().request(
        "POST", f"/vedette/messages/{identity_path(device, None)}", message
    )
    done("queued", as_json=as_json)


@app.command()
@user_errors
def enrol(
    device: Annotated[str, typer.Argument(help="The registration id.")],
    device_id: Annotated[
        str | None, typer.Option(help="The device id that it leads to, if it is another.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Enrol a device individually with the provisioning service, and print as JSON what it needs
    to provision itself: `provisioning` of its config.json."""
    found = enrolment.enrol(HubConnection.find(), device, device_id or "")
    show(found, as_json=as_json)


def _der(certificate: Path) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(certificate.read_text())
    except OSError as error:
        raise CommandError(f"cannot read {certificate}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{certificate} is not a certificate in PEM form") from None


def _json(text: str) -> Any:
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise CommandError(f"the payload is not JSON: {error}") from None
