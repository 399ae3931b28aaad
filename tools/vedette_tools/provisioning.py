"""Makes a board a device of the hub: its identity there, its settings, its config.json and key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vedette_tools.board_link import BoardLink, Facts
from vedette_tools.boards import Board
from vedette_tools.connection import HubConnection, NotFound, identity_path
from vedette_tools.errors import INVALID, CommandError
from vedette_tools.project import Project

if TYPE_CHECKING:
    from vedette_tools.device_certificate import DeviceCertificate

CONFIG = "config.json"
CERTIFICATE, KEY = "device.der", "device-key.der"
# Their names in NVS.
SECRETS = {"connection_string": "connection", "key": "registration", "password": "password"}
PRIVATE_KEY = "private_key"
IN_NVS = "NVS"


def identity(
    hub: HubConnection, device: str, module: str | None, own: DeviceCertificate | None = None
) -> str:
    """The connection string of a device or module, which is made where it is not there.

    It proves itself with `own`, or with a key that the hub makes. Errors: CommandError where it is
    there, and proves itself by something else.
    """
    if module:
        _record(hub, device, None, None)
    record = _record(hub, device, module, own)
    _check_proof(device, module, record["authentication"], own)
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
    own: DeviceCertificate | None = None,
) -> str:
    """Writes config.json, the roots, and the device's certificate where it has one.

    `identity` is its `connection_string`, or its `provisioning`. Returns where its key is: NVS,
    or the name of the file that shows it.
    """
    config = {**identity, "ca": list(roots), **project.config}
    if password:
        config["network"] = {**project.config["network"], "password": password}
    if own:
        hidden, file = link.keep_secret(PRIVATE_KEY, own.key), KEY
        config["certificate"] = [CERTIFICATE, {"nvs": PRIVATE_KEY} if hidden else KEY]
    elif "provisioning" in config:
        hidden, file = _hide(link, config["provisioning"], "key"), CONFIG
    else:
        hidden, file = _hide(link, config, "connection_string"), CONFIG
    if password:
        _hide(link, config["network"], "password")
    for name, content in roots.items():
        link.replace(name, content)
    if own:
        link.replace(CERTIFICATE, own.certificate)
        if not hidden:
            link.replace(KEY, own.key)
    link.replace(CONFIG, json.dumps(config).encode())
    if not own or hidden:
        link.remove(KEY)  # of the time before
    return IN_NVS if hidden else file


def _hide(link: BoardLink, document: dict[str, Any], key: str) -> bool:
    hidden = link.keep_secret(SECRETS[key], document[key])
    if hidden:
        document[key] = {"nvs": SECRETS[key]}
    return hidden


def _record(
    hub: HubConnection, device: str, module: str | None, own: DeviceCertificate | None
) -> dict[str, Any]:
    path = f"/devices/{identity_path(device, module)}"
    try:
        record = hub.request("GET", path)
    except NotFound:
        body: dict[str, Any] = {"deviceId": device, **({"moduleId": module} if module else {})}
        if own:
            prints = {"primaryThumbprint": own.thumbprint}
            body["authentication"] = {"type": "selfSigned", "x509Thumbprint": prints}
        record = hub.request("PUT", path, body)
    return dict(record)


def _check_proof(
    device: str, module: str | None, known: dict[str, Any], own: DeviceCertificate | None
) -> None:
    """Errors: CommandError where the hub expects another proof than the board is to have."""
    kind = known.get("type", "sas")
    option = f" --module {module}" if module else ""
    again = f"`vedette device delete {device}{option}`, and this once more, makes it anew"
    if kind == "sas" and own:
        why, next_step = "there it has a key", again
    elif kind != "sas" and not own:
        why, next_step = "there it has a certificate", "give it, with --certificate and --key"
    elif own and kind == "certificateAuthority" and own.name != device:
        why, next_step = f"the certificate is for {own.name}", f"take that of {device}"
    elif own and not own.is_known(known):
        why, next_step = "there it has another certificate", again
    else:
        return
    raise CommandError(f"{device} cannot prove itself so", why=why, next_step=next_step)


def read_config(link: BoardLink) -> dict[str, Any] | None:
    """A board's config.json; None where there is none, or it is no object."""
    try:
        document = json.loads(link.read(CONFIG) or b"null")
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
