"""`vedette twin`: a device's twin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools.commands.device import DeviceId, Module
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson, key_and_value, show
from vedette_tools.connection import HubConnection, identity_path
from vedette_tools.errors import FAILED, CommandError
from vedette_tools.hub import strict_json

app = typer.Typer(no_args_is_help=True, help="Twins: what a device is to be, and what it reports.")


def _path(device: str, module: str | None) -> str:
    return f"/twins/{identity_path(device, module)}"


@app.command()
@user_errors
def get(device: DeviceId, module: Module = None, as_json: AsJson = False) -> None:
    """Print the whole twin as JSON."""
    twin = HubConnection.find().request("GET", _path(device, module))
    show(twin, as_json=as_json)


@app.command(name="set")
@user_errors
def set_desired(
    device: DeviceId,
    changes: Annotated[
        list[str],
        typer.Argument(
            help="A JSON object, @FILE with one, or KEY=VALUE pairs; dots in a KEY go deeper, a "
            "VALUE is JSON or else a string."
        ),
    ],
    module: Module = None,
    as_json: AsJson = False,
) -> None:
    """Merge changes into the twin's desired properties; null deletes a key.

    The object is the desired properties, or {"properties": {"desired": ...}, "tags": ...}.
    Examples: vedette twin set d1 microAgent.Heartbeat_Disabled=true;
    vedette twin set d1 '{"microAgent": null}'; vedette twin set d1 @twin.json
    """
    request = _request(changes)
    twin = HubConnection.find().request("PATCH", _path(device, module), request)
    show(twin["properties"]["desired"], as_json=as_json)


@app.command()
@user_errors
def diff(device: DeviceId, module: Module = None, as_json: AsJson = False) -> None:
    """Compare what the agent is to have with what it reports. Fails when they differ."""
    properties = HubConnection.find().request("GET", _path(device, module))["properties"]
    desired, reported = (_agent(properties, side, module) for side in ("desired", "reported"))
    reasons = {each["key"]: each["reason"] for each in reported.get("latest_invalid_fields", [])}
    found = [
        {
            "key": key,
            "desired": value,
            "reported": reported.get(key),
            "reason": reasons.get(key, "" if key in reported else "not reported"),
        }
        for key, value in sorted(desired.items())
        if reported.get(key) != value
    ]
    if as_json:
        typer.echo(json.dumps({"differences": found}))
    else:
        for each in found:
            reason = f"  ({each['reason']})" if each["reason"] else ""
            wanted, has = json.dumps(each["desired"]), json.dumps(each["reported"])
            typer.echo(f"{each['key']}: to be {wanted}, is {has}{reason}")
    if found:
        raise typer.Exit(FAILED)


def _agent(properties: dict[str, Any], side: str, module: str | None) -> dict[str, Any]:
    """The agent's part of the desired or reported properties. Errors: CommandError."""
    section = properties[side] if module else properties[side].get("microAgent") or {}
    if not isinstance(section, dict):
        raise CommandError(f"microAgent of the {side} properties is no object")
    return {key: value for key, value in section.items() if not key.startswith("$")}


def _request(changes: list[str]) -> dict[str, Any]:
    if len(changes) == 1 and changes[0].startswith("@"):
        path = Path(changes[0][1:])
        try:
            document = _object(path.read_text(), str(path))
        except OSError as error:
            raise CommandError(f"cannot read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise CommandError(f"{path} is not JSON: it is no text in UTF-8") from None
    elif len(changes) == 1 and changes[0].lstrip().startswith("{"):
        document = _object(changes[0], "the argument")
    else:
        document = _from_pairs(changes)
    if "properties" in document and set(document) <= {"properties", "tags"}:
        return document
    return {"properties": {"desired": document}}


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        document = strict_json.loads(text)
    except ValueError as error:
        raise CommandError(f"{name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise CommandError(f"{name} has to be a JSON object")
    return document


def _from_pairs(pairs: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for pair in pairs:
        key, text = key_and_value(pair)
        try:
            value = strict_json.loads(text)
        except ValueError:
            value = text
        *above, last = key.split(".")
        place = document
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise CommandError(f"{pair!r}: {name} was given a value already")
        place[last] = value
    return document
