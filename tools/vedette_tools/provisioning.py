"""Makes a board a device of the hub: its identity there, its settings, its config.json and key."""

from __future__ import annotations

import json
from typing import Any

from vedette_tools.board_link import BoardLink, Facts
from vedette_tools.boards import Board
from vedette_tools.connection import HubConnection, NotFound, identity_path
from vedette_tools.errors import INVALID, CommandError
from vedette_tools.project import Project

CONFIG = "config.json"
# Their names in NVS.
SECRETS = {"connection_string": "connection", "key": "registration", "password": "password"}


def identity(hub: HubConnection, device: str, module: str | None) -> str:
    """The connection string of a device or module, which is made where it is not there."""
    record = _record(hub, device, None)
    if module:
        record = _record(hub, device, module)
    return hub.device_connection_string(record)


def set_twin(
    hub: HubConnection, device: str, module: str | None, settings: dict[str, Any]
) -> None:
    """Merges the agent's settings into the desired properties."""
    desired = settings if module else {"microAgent": settings}
    body = {"properties": {"desired": desired}}
    hub.request("PATCH", f"/twins/{identity_path(device, module)}", body)


def check_board(board: Board, facts: Facts, port: str) -> None:
    """Errors: CommandError where another board is on the port."""
    if not board.is_it(facts.platform, facts.machine):
        raise CommandError(
            f"the board on {port} is no {board.name}",
            why=f"it says of itself: {facts.machine}",
            next_step="name another port, or the right board in config.toml",
            code=INVALID,
        )


def configure(
    link: BoardLink,
    project: Project,
    identity: dict[str, Any],
    password: str,
    roots: dict[str, bytes],
) -> bool:
    """Writes config.json and the roots. Returns whether no file shows the secrets.

    `identity` is its `connection_string`, or its `provisioning`.
    """
    config = {**identity, "ca": list(roots), **project.config}
    if password:
        config["network"] = {**project.config["network"], "password": password}
    if "provisioning" in config:
        hidden = _hide(link, config["provisioning"], "key")
    else:
        hidden = _hide(link, config, "connection_string")
    if password:
        _hide(link, config["network"], "password")
    for name, content in roots.items():
        link.replace(name, content)
    link.replace(CONFIG, json.dumps(config).encode())
    return hidden


def _hide(link: BoardLink, document: dict[str, Any], key: str) -> bool:
    hidden = link.keep_secret(SECRETS[key], document[key])
    if hidden:
        document[key] = {"nvs": SECRETS[key]}
    return hidden


def _record(hub: HubConnection, device: str, module: str | None) -> dict[str, Any]:
    path = f"/devices/{identity_path(device, module)}"
    try:
        record = hub.request("GET", path)
    except NotFound:
        body = {"deviceId": device, **({"moduleId": module} if module else {})}
        record = hub.request("PUT", path, body)
    return dict(record)


def read_config(link: BoardLink) -> dict[str, Any] | None:
    """A board's config.json; None where there is none, or it is no object."""
    try:
        document = json.loads(link.read(CONFIG) or b"null")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
