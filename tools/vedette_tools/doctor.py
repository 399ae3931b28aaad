"""Looks at a board, its configuration and the hub, and says what is not well and what to do."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.filesize import decimal

from vedette_tools import boards, deployment, mpy, provisioning
from vedette_tools.board_link import NVS, NVS_MAX, BoardError, BoardLink, Facts, find_port
from vedette_tools.connection import (
    HubConnection,
    NotFound,
    identity_path,
    parse_connection_string,
)
from vedette_tools.errors import CommandError

GOOD, WARNING, BAD, SKIPPED = "good", "warning", "bad", "skipped"
SKEW_S = 300  # a token's times are believed that far apart
TLS_PORT = 8883
TLS_S = 10
FLASH_MIN = 256_000  # two versions, journal and state
STATE = "vedette-state"  # the agent's folder, unless config.json names another


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: str
    says: str
    next_step: str = ""


def examine(port: str | None) -> Iterator[Finding]:
    """Looks at everything, from the port to the hub; what cannot be reached is skipped."""
    config: dict[str, Any] | None = None
    device: dict[str, str] | None = None
    roots: list[bytes] = []
    own: bytes | None = None
    try:
        target = find_port(port)
        with BoardLink(target) as link:
            yield Finding("port", GOOD, target)
            facts = link.facts()
            yield from _board(facts)
            yield _version(link)
            config = provisioning.read_config(link)
            yield _config(config)
            if config:
                roots = [data for path in _paths(config) if (data := link.read(path))]
                yield _roots(config, roots)
                device = _device(link, config)
                if "certificate" in config:
                    own, has_key = _own(link, config["certificate"])
                    yield _certificate(own, has_key)
    except CommandError as error:
        yield Finding("port", BAD, f"{error.what}: {error.why}", error.next_step)
    if config:
        yield _key(config, device)
        yield _tls(device, roots)
    yield from _hub(device, own)


def _board(facts: Facts) -> Iterator[Finding]:
    board = boards.recognise(facts.platform, facts.machine)
    if board:
        yield Finding("board", GOOD, f"{board.name}: {facts.machine}")
    else:
        says = f"{facts.machine} is none that is known"
        yield Finding("board", WARNING, says, "`vedette boards` lists those that were looked at")
    try:
        march = mpy.architecture_named(facts.mpy, "it")
        yield Finding("firmware", GOOD, f"{facts.version}, {march or 'bytecode only'}")
    except CommandError as error:
        yield Finding("firmware", BAD, str(error), "`vedette flash` writes a newer one")
    budget = board.heap_budget if board else 0
    yield Finding(
        "heap",
        GOOD if facts.heap_free > budget else BAD,
        f"{decimal(facts.heap_free)} of {decimal(facts.heap)} are free",
        "" if facts.heap_free > budget else "the agent needs more: take a board with more",
    )
    yield Finding(
        "flash",
        GOOD if facts.flash_free > FLASH_MIN else WARNING,
        f"{decimal(facts.flash_free)} of {decimal(facts.flash)} are free",
        "" if facts.flash_free > FLASH_MIN else "two versions may not fit: remove files",
    )
    skew = facts.clock - int(time.time())
    clock = datetime.fromtimestamp(facts.clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if abs(skew) <= SKEW_S:
        yield Finding("clock", GOOD, f"{clock}, {skew:+d} s from here")
    else:
        next_step = "with [network] in config.toml the agent sets it by network time"
        yield Finding("clock", WARNING, f"{clock} is {skew:+d} s from here", next_step)


def _version(link: BoardLink) -> Finding:
    record = (link.read(deployment.RECORD) or b"").decode(errors="replace").splitlines()
    if not record:
        return Finding("agent", WARNING, "none was deployed", "`vedette deploy`")
    for line in record[1:]:
        digest, path = line.partition(" ")[0], line.split(" ", 2)[-1]  # of a torn line, all of it
        if link.digest(path) != digest:
            says = f"{path} is not what was deployed"
            return Finding("agent", BAD, says, "`vedette deploy` puts it right")
    return Finding("agent", GOOD, f"{record[0]}, {len(record) - 1} files as deployed")


def _config(config: dict[str, Any] | None) -> Finding:
    if config is None:
        return Finding("config.json", BAD, "there is none", "`vedette provision` writes it")
    return Finding("config.json", GOOD, ", ".join(sorted(config)))


def _paths(config: dict[str, Any]) -> list[str]:
    paths = config.get("ca")
    paths = [paths] if isinstance(paths, str) else paths
    return [str(path) for path in paths] if isinstance(paths, list) else []


def _roots(config: dict[str, Any], roots: list[bytes]) -> Finding:
    if not roots or len(roots) != len(_paths(config)):
        return Finding(
            "CA", BAD, "a root is not on the board", "`vedette provision` puts it there"
        )
    from cryptography import x509  # here, as it takes long to import

    now = datetime.now(UTC)
    for data in roots:
        try:
            until = x509.load_der_x509_certificate(data).not_valid_after_utc
        except ValueError:
            return Finding(
                "CA", BAD, "a root is no certificate in DER form", "`vedette provision`"
            )
        if until < now:
            return Finding("CA", BAD, f"a root ended on {until:%Y-%m-%d}", "`vedette provision`")
    return Finding("CA", GOOD, f"{len(roots)}, the last until {until:%Y-%m-%d}")


def _certificate(own: bytes | None, has_key: bool) -> Finding:
    """The device's own."""
    again = "`vedette provision` with --certificate and --key"
    if own is None or not has_key:
        what = "its private key" if own else "it"
        return Finding("certificate", BAD, f"{what} is not on the board", again)
    from cryptography import x509

    try:
        until = x509.load_der_x509_certificate(own).not_valid_after_utc
    except ValueError:
        return Finding("certificate", BAD, "it is no certificate in DER form", again)
    if until < datetime.now(UTC):
        return Finding("certificate", BAD, f"it ended on {until:%Y-%m-%d}", again)
    return Finding("certificate", GOOD, f"until {until:%Y-%m-%d}")


def _own(link: BoardLink, pair: Any) -> tuple[bytes | None, bool]:
    """The device's certificate, and whether its private key is there."""
    try:
        certificate, key = pair
    except (TypeError, ValueError):
        return None, False
    if not isinstance(key, dict):
        return link.read(str(certificate)), link.digest(str(key)) is not None
    code = f"import esp32\nesp32.NVS({NVS!r}).get_blob({key.get('nvs')!r},bytearray({NVS_MAX}))"
    try:
        link.run(code, "find its private key")
    except BoardError:
        return link.read(str(certificate)), False
    return link.read(str(certificate)), True


def _is_known(own: bytes, authentication: dict[str, Any]) -> bool:
    from vedette_tools.device_certificate import is_known

    return is_known(own, authentication)


def _device(link: BoardLink, config: dict[str, Any]) -> dict[str, str] | None:
    """Who the board is, as the fields of a connection string; None where that is not whole."""
    if provisioning := config.get("provisioning"):
        kept = link.read(f"{config.get('state', STATE)}/hub.json")
        try:
            assigned = json.loads(kept or b"null")
            fields = {"HostName": assigned["hub"], "DeviceId": assigned["device"]}
            if "key" in provisioning:
                fields["SharedAccessKey"] = _secret(link, provisioning["key"])
        except (ValueError, KeyError, TypeError):
            return None
        return fields
    try:
        fields = parse_connection_string(_secret(link, config.get("connection_string")))
    except CommandError:
        return None
    proofs = {"SharedAccessKey", "x509"}
    return fields if {"HostName", "DeviceId"} <= set(fields) and proofs & set(fields) else None


def _secret(link: BoardLink, given: Any) -> str:
    """A secret of config.json, or of the place that it names; empty where there is none."""
    if not isinstance(given, dict):
        return str(given or "")
    code = (
        f"import esp32\nb=bytearray({NVS_MAX})\n"
        f"print(str(b[:esp32.NVS({NVS!r}).get_blob({given.get('nvs')!r},b)],'utf-8'))"
    )
    try:
        return link.run(code, "read its key").strip()
    except CommandError:
        return ""


def _key(config: dict[str, Any], device: dict[str, str] | None) -> Finding:
    if device:
        return Finding("key", GOOD, f"of {device['DeviceId']}")
    if "provisioning" in config:
        says = "the provisioning service has assigned it no hub yet"
        return Finding("key", BAD, says, "`vedette monitor --reset` shows why")
    return Finding("key", BAD, "there is no whole connection string", "`vedette provision`")


def _tls(device: dict[str, str] | None, roots: list[bytes]) -> Finding:
    if not device or not roots:
        return Finding("TLS", SKIPPED, "without key and CA there is nothing to try")
    host, _, port = device["HostName"].partition(":")
    try:
        context = ssl.create_default_context(cadata=b"".join(roots))
        with (
            socket.create_connection((host, int(port or TLS_PORT)), TLS_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return Finding("TLS", GOOD, f"{host} is who the board's CA says")
    except ssl.SSLError as error:
        return Finding("TLS", BAD, f"{host}: {error}", "`vedette provision` with the hub's --ca")
    except (OSError, ValueError) as error:
        return Finding(
            "TLS", BAD, f"{host} is not reached: {error}", "is the hub up, the port open?"
        )


def _hub(device: dict[str, str] | None, own: bytes | None) -> Iterator[Finding]:
    try:
        hub = HubConnection.find()
        name = device["DeviceId"] if device else "doctor"
        module = device.get("ModuleId") if device else None
        try:
            record = hub.request("GET", f"/devices/{identity_path(name, module)}")
        except NotFound:
            record = None
    except CommandError as error:
        yield Finding(
            "hub", BAD, ": ".join(filter(None, (error.what, error.why))), error.next_step
        )
        return
    yield Finding("hub", GOOD, f"{hub.host} answers")
    if not device:
        return
    if record is None:
        yield Finding("device", BAD, f"the hub has no {name}", "`vedette provision` makes it")
        return
    keys = record["authentication"].get("symmetricKey") or {}
    if record.get("status", "enabled") != "enabled":
        yield Finding("device", BAD, f"{name} is disabled at the hub", "enable it there")
    elif "SharedAccessKey" in device and device["SharedAccessKey"] not in keys.values():
        yield Finding("device", BAD, "the board's key is not the hub's", "`vedette provision`")
    elif own and not _is_known(own, record["authentication"]):
        yield Finding(
            "device", BAD, "the board's certificate is not the hub's", "`vedette provision` tells"
        )
    else:
        state = str(record.get("connectionState", "unknown")).lower()
        proof = "has this key" if "SharedAccessKey" in device else "is there"
        yield Finding("device", GOOD, f"{name} {proof}; {state}")
