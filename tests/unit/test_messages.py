"""What the real MicroPython renders: both forms against the schema, each other, and the flows."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from conftest import LANES, ROOT, device_environment  # noqa: E402
from vedette_tools.expand import expand  # noqa: E402

INTERVAL = 7200
ROW_MAX = {"columns": 252, "objects": 512}
FRAME_MAX = 768

SCHEMA = json.loads((ROOT / "tools/vedette_tools/schema/message.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def device(lane: str, script: str, *arguments: object) -> list[Any]:
    """Runs a script of tests/device; returns the JSON documents that it printed."""
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    command = [str(LANES[lane]), "-X", "heapsize=16m", str(TESTS / "device" / script)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env=device_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def rendered(lane: str, seed: int, count: int, size: int) -> list[Any]:
    """Returns the flows, and the messages in objects form and in columns form."""
    return device(lane, "render_flows.py", seed, count, size)


def events(messages: list[str]) -> list[dict[str, Any]]:
    return [event for message in messages for event in json.loads(message)["Events"]]


def rows(messages: list[str]) -> list[dict[str, Any]]:
    return [row for event in events(messages) for row in expand(event)["Payload"]]


def key(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def expected(flow: list[Any], names: dict[str, str]) -> dict[str, Any]:
    protocol, direction, app, laddr, lport, raddr, rport, received, sent, _, *rest = flow
    first, last, _ = rest
    host = names.get(raddr)
    if host:
        host = re.sub(r'[^\x21-\x7e]|["\\]', "?", host)[:64]
    none = 0 if protocol == 1 else None
    return {
        "local_address": laddr,
        "local_port": lport or none,
        "remote_address": raddr,
        "remote_port": rport or none,
        "transport_protocol": {6: "TCP", 17: "UDP", 1: "ICMP"}[protocol],
        "application_protocol": app,
        "direction": "Out" if direction else "In",
        "bytes_in": received,
        "bytes_out": sent,
        "hit_count": 2 if protocol == 17 else 1,
        "first_seen": INTERVAL - first,
        "last_seen": INTERVAL - last,
        "extended_properties": {"host_name": host} if host else None,
    }


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(("count", "size"), [(1, 65536), (60, 4096), (256, 65536)])
def test_both_forms_say_what_the_table_saw(lane: str, seed: int, count: int, size: int) -> None:
    flows, objects, columns = rendered(lane, seed, count, size)
    for message in objects + columns:
        VALIDATOR.validate(json.loads(message))
        assert len(message.encode()) <= size
    assert rows(objects) == rows(columns)
    names = {flow[5]: flow[12] for flow in flows if flow[5] and flow[12]}
    assert sorted(map(key, rows(columns))) == sorted(key(expected(flow, names)) for flow in flows)
    identities = [event["Id"] for event in events(columns)]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("lane", LANES)
def test_256_flows_are_one_event_within_three_units(lane: str) -> None:
    _, _, columns = rendered(lane, 1, 256, 65536)
    (message,) = columns
    (event,) = events(columns)
    assert len(expand(event)["Payload"]) == 256
    assert len(message) / 256 <= 48


@pytest.mark.parametrize("form", ["columns", "objects"])
def test_the_longest_rows_stay_within_the_bound_that_splits_events(form: str) -> None:
    _, objects, columns = rendered("64", 0, 256, 65536)
    messages = objects if form == "objects" else columns
    for event in events(messages):
        payload = event["Payload"]
        count = len(payload if isinstance(payload, list) else payload["rows"])
        text = json.dumps(payload, separators=(",", ":"))
        assert len(text) <= count * ROW_MAX[form] + FRAME_MAX // 2
    for message in messages:
        assert len(message) <= 65536
    if form == "columns":
        assert len(events(messages)) == 1


def test_addresses_are_written_as_the_standard_says() -> None:
    flows, _, columns = rendered("64", 8, 256, 65536)
    seen = 0
    for row in rows(columns):
        for address in (row["local_address"], row["remote_address"]):
            if address is not None:
                assert str(ipaddress.ip_address(address)) == address
                seen += ":" in address
    assert seen > 100


@pytest.mark.parametrize("form", ["columns", "objects"])
@pytest.mark.parametrize("lane", LANES)
def test_every_other_event_keeps_to_the_schema(lane: str, form: str) -> None:
    (message,) = device(lane, "render_events.py", form)
    VALIDATOR.validate(message)
    found = {event["Name"]: expand(event)["Payload"] for event in message["Events"]}
    collected = {"SystemInformation", "Heartbeat", "Statistics"}
    assert set(found) == collected | {"Alert", "ConfigurationError", "Crash"}
    assert all(len(payload) == 1 for payload in found.values())
    information = found["SystemInformation"][0]
    assert information["os_platform"] == "linux"
    assert information["memory_total"] > information["memory_free"] > 0
    assert found["ConfigurationError"][0] == {"key": "Some_Key", "reason": 'a "reason"'}
    assert found["Crash"][0] == {
        "reset_cause": None,
        "error": "KeyError",
        "where": "app.py:3 main",
        "failed_starts": 2,
        "safe_mode": False,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("AgentId",), "not a uuid"),
        (("Events", 0, "Name"), "Something"),
        (("Events", 0, "IsEmpty"), True),
        (("Events", 0, "TimestampUTC"), "2026-11-24 03:00:00"),
        (("Events", 0, "Payload", "rows", 0, 2), -1),
        (("Events", 0, "Payload", "rows", 0, 0), "443"),
        (("Events", 0, "Payload", "columns", 0), "port"),
        (("Events", 0, "Payload", "shared", 0, "rows", 0, 0), 0),
        (("Events", 0, "Payload", "shared", 1, "rows", 0, 1), "example.com"),
    ],
)
def test_the_schema_refuses_what_the_contract_does_not_allow(path: tuple, value: object) -> None:
    _, _, columns = rendered("64", 1, 5, 65536)
    message = json.loads(columns[0])
    VALIDATOR.validate(message)
    inner = message
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert not VALIDATOR.is_valid(message)


def test_a_shared_table_that_misses_rows_is_refused() -> None:
    _, _, columns = rendered("64", 1, 5, 65536)
    (event,) = events(columns)
    event["Payload"]["shared"][1]["rows"].pop()
    with pytest.raises(ValueError, match="goes for"):
        expand(event)
