"""`vedette hub`: run the local hub, and look at what it received."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, done, show
from vedette_tools.commands.progress import busy
from vedette_tools.connection import (
    HubConnection,
    NotLocal,
    ca_from_environment,
    event_hub_from_environment,
    state_directory,
)
from vedette_tools.errors import USAGE, CommandError, reason

app = typer.Typer(no_args_is_help=True, help="The local stand-in for Azure IoT Hub.")


@app.command()
@user_errors
def up(
    state: Annotated[
        Path | None, typer.Option(help="Directory that keeps keys, devices and messages.")
    ] = None,
    mqtt_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of MQTT over TLS; 0: any free one.")
    ] = 8883,
    https_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the service API; 0: any free one.")
    ] = 8443,
    amqps_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Take service SDKs by AMQP over TLS on this port (theirs is 5671).",
        ),
    ] = None,
    daily_quota: Annotated[
        int | None,
        typer.Option(
            min=1, help="Units of 4 KB a day; then devices are refused until midnight UTC."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(help="Address to listen on; loopback unless told otherwise.")
    ] = "127.0.0.1",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each connection.")] = False,
) -> None:
    """Run the hub in the foreground, until Ctrl-C."""
    from vedette_tools.hub import main
    from vedette_tools.hub.errors import HubStartError

    if not listen:  # to a socket that is every address
        raise CommandError("--listen is empty", next_step="give an address", code=USAGE)
    _check_ports(
        {"--mqtt-port": mqtt_port, "--https-port": https_port, "--amqps-port": amqps_port}
    )
    logging.basicConfig(
        format="%(levelname)s %(message)s",
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
    )
    directory = (state or state_directory()).expanduser().resolve()

    def ready(connection: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(connection), flush=True)
            return
        print(
            f"The hub is ready.\n"
            f"  devices: MQTT over TLS on {connection['mqtt_host']}:{connection['mqtt_port']}\n"
            f"  service: https://localhost:{connection['https_port']}\n"
            f"  CA:      {connection['ca']}\n"
            f"  state:   {directory}\n"
            f"Next: `vedette device create my-device` in another terminal. Ctrl-C ends the hub.",
            flush=True,
        )

    options = main.Options(directory, listen, mqtt_port, https_port, amqps_port, daily_quota)
    try:
        main.run(options, ready)
    except HubStartError as error:
        raise CommandError(str(error)) from None
    except BrokenPipeError:
        raise
    except (OSError, ValueError, sqlite3.Error) as error:
        raise CommandError(
            f"the hub cannot run with the state in {directory}",
            why=reason(error),
            next_step="delete what is damaged there, or choose another directory with --state",
        ) from None


def _check_ports(ports: dict[str, int | None]) -> None:
    """Errors: CommandError where two options have the same port."""
    for (one, port), (other, same) in itertools.combinations(ports.items(), 2):
        if port and port == same:
            raise CommandError(
                f"{one} and {other} are both {port}",
                next_step="give each a port of its own (0: any free one)",
                code=USAGE,
            )


@app.command()
@user_errors
def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new messages, until Ctrl-C.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Only this device's messages.")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only messages since then, in UTC.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the last so many of those there are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print errors as JSON too.")] = False,
) -> None:
    """Print the messages that devices sent, one JSON object a line.

    Of Azure's hub too; there VEDETTE_HUB may also be the Event Hub-compatible connection string
    of its built-in endpoint.
    """
    since = since.replace(tzinfo=UTC) if since else None
    ordinary_ends = (KeyboardInterrupt,) if follow else ()
    with contextlib.suppress(*ordinary_ends):
        if named := event_hub_from_environment():
            from vedette_tools.event_hub import Endpoint, Wanted, read  # slow to import

            endpoint = Endpoint.named(named)
        else:
            hub = HubConnection.find()
            try:
                _print_local(hub, device, since, limit, follow)
                return
            except NotLocal:
                from vedette_tools.event_hub import Endpoint, Wanted, read

                with busy(f"asking {hub.name} where its events are"):
                    endpoint = Endpoint.behind(hub)
        read(endpoint, ca_from_environment(), Wanted(device, since, limit, follow), typer.echo)


def _print_local(
    hub: HubConnection,
    device: str | None,
    since: datetime | None,
    limit: int | None,
    follow: bool,
) -> None:
    query: dict[str, Any] = {}
    if device:
        query["device"] = device
    if since:
        query["since"] = int(since.timestamp() * 1000)
    if limit:
        query["last"] = limit
    if follow:
        query["follow"] = 1
    for line in hub.lines("/vedette/events", query):
        sys.stdout.buffer.write(line)
        if follow:
            sys.stdout.flush()


@app.command()
@user_errors
def statistics(as_json: AsJson = False) -> None:
    """Print as JSON how many devices and messages there are, and what the day's quota was charged:
    messages of 4 KB."""
    show(HubConnection.find().request("GET", "/vedette/statistics"), as_json=as_json)


@app.command()
@user_errors
def trust(
    certificate: Annotated[Path, typer.Argument(help="An authority's X.509 certificate, PEM.")],
    as_json: AsJson = False,
) -> None:
    """Take the devices of a certificate authority that are created with --ca-signed."""
    try:
        pem = certificate.read_bytes().decode(errors="replace")
    except OSError as error:
        raise CommandError(f"cannot read {certificate}: {error.strerror}") from None
    path = f"/vedette/authorities/{quote(certificate.stem, safe='')}"
    HubConnection.find().request("PUT", path, {"certificate": pem})
    done("trusted", as_json=as_json)


@app.command()
@user_errors
def kick(
    device: Annotated[str, typer.Argument(help="The device's id.")],
    module: Annotated[str | None, typer.Option(help="A module of the device.")] = None,
    as_json: AsJson = False,
) -> None:
    """Close a device's connection, as the service does at times."""
    from vedette_tools.connection import identity_path

    HubConnection.find().request("POST", f"/vedette/kick/{identity_path(device, module)}")
    done("closed", as_json=as_json)


@app.command()
@user_errors
def fault(
    kind: Annotated[
        str, typer.Argument(help="throttle, quota, grace, outage, stall, network; or clear.")
    ],
    duration: Annotated[
        float | None, typer.Option("--for", min=0, help="Seconds; else until `clear`.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="grace: how long past a token's end.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="network: added each way.")
    ] = None,
    loss: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="network: part of the segments lost.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a fault that a device has to cope with, or clear all.

    throttle: twin requests are answered 429. quota: devices are dropped and refused. grace: a
    connection outlives its token. outage: the broker is down. stall: it does not answer. network:
    latency and loss.
    """
    hub = HubConnection.find()
    if kind == "clear":
        hub.request("DELETE", "/vedette/faults")
        done("cleared", as_json=as_json)
        return
    given = {"for": duration, "seconds": seconds, "latency_ms": latency_ms, "loss": loss}
    body = {name: value for name, value in given.items() if value is not None}
    hub.request("PUT", f"/vedette/faults/{quote(kind, safe='')}", body)
    done("begun", as_json=as_json)
