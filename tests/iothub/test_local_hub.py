"""The client on the real MicroPython against the local hub: tokens, telemetry, twins, outages."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from device import Device, lane
from hubfixture import LocalHub, hub, own_hub

__all__ = ["hub", "lane", "own_hub"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the hub's root certificate goes, as DER."""
    return tmp_path / "root.der"


def device(lane: str, hub: LocalHub, root: Path, text: str, **options: object) -> Device:
    root.write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    return Device(lane, text, root, **options)


def test_telemetry_with_properties(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"telemetry-{lane}"
    properties = {
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "$.mid": "m+1 #/",
        "colour": "grün & blau=?",
        "empty": "",
    }
    with device(lane, hub, root, hub.create_device(name)) as probe:
        number = probe.do("send", body='{"a":1}', properties=properties)
        probe.expect("sent", number=number)
        number = probe.do("stream", size=12345, properties={"n": "2"})
        probe.expect("sent", number=number)
    first, second = hub.wait_events(name, 2)
    assert first["body"] == {"a": 1}
    assert first["properties"] == {"colour": "grün & blau=?", "empty": ""}
    system = first["systemProperties"]
    assert (system["$.ct"], system["$.ce"], system["$.mid"]) == (
        "application/json",
        "utf-8",
        "m+1 #/",
    )
    assert second["body"] == "s" * 12345 and second["properties"] == {"n": "2"}


def test_twin_both_ways(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"twin-{lane}"
    text = hub.create_device(name)
    version = hub.set_twin(name, {"interval": 30, "deep": {"a": [1, "ü"]}})["properties"][
        "desired"
    ]
    with device(lane, hub, root, text) as probe:
        told = probe.expect("desired", full=True)
        assert told["desired"] == {"interval": 30, "deep": {"a": [1, "ü"]}}
        assert told["version"] == version["$version"]
        hub.set_twin(name, {"interval": None, "other": 1})
        told = probe.expect("desired", full=False)
        assert told["desired"] == {"interval": None, "other": 1}
        assert told["version"] == version["$version"] + 1
        versions = []
        for patch in ({"state": "ok", "n": 1}, {"n": None, "m": "ü"}):
            number = probe.do("report", patch=patch)
            versions.append(probe.expect("reported", number=number)["result"])
        assert versions[1] == versions[0] + 1
        reported = hub.twin(name)["properties"]["reported"]
        assert {k: v for k, v in reported.items() if k[0] != "$"} == {"state": "ok", "m": "ü"}
        number = probe.do("report", patch={"bad key": 1})
        probe.expect("error", number=number, code="rejected")


def test_a_module(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"module-{lane}"
    text = hub.create_device(name, "security")
    hub.set_twin(name, {"of": "module"}, "security")
    with device(lane, hub, root, text) as probe:
        assert probe.expect("desired", full=True)["desired"] == {"of": "module"}
        number = probe.do("send", body="hello")
        probe.expect("sent", number=number)
        number = probe.do("report", patch={"by": "module"})
        probe.expect("reported", number=number)
    [event] = hub.wait_events(name)
    assert event["moduleId"] == "security"
    assert hub.twin(name, "security")["properties"]["reported"]["by"] == "module"


def test_a_wrong_key(lane: str, hub: LocalHub, root: Path) -> None:
    hub.create_device("wrong-key")
    text = f"HostName=localhost:{hub.port};DeviceId=wrong-key;SharedAccessKey=c2VjcmV0"
    with device(lane, hub, root, text) as probe:
        number = probe.do("wait", timeout=1)
        probe.expect("error", number=number, code="refused")


def test_a_kick_is_followed_by_a_reconnect(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"kick-{lane}"
    with device(lane, hub, root, hub.create_device(name)) as probe:
        probe.expect("desired", full=True)
        hub.kick(name)
        probe.expect("connection", up=False, code="closed")
        probe.expect("desired", full=True)


@pytest.mark.parametrize("clean_session", [False, True])
def test_the_hub_is_restarted_under_load(
    lane: str, own_hub: LocalHub, root: Path, clean_session: bool
) -> None:
    text = own_hub.create_device("restart")
    with device(lane, own_hub, root, text, clean_session=clean_session) as probe:
        probe.expect("desired", full=True)
        numbers = []
        for i in range(60):
            numbers.append(probe.do("send", body=str(i)))
            if i == 20:
                own_hub.kill9("broker")
            if i == 40:
                own_hub.restart()
        for number in numbers:
            probe.outcome(number, timeout=40)
        own_hub.set_twin("restart", {"after": True})
        probe.expect("desired", desired={"after": True})
    bodies = {event["body"] for event in own_hub.wait_events("restart", lambda e: len(e) >= 60)}
    assert bodies >= set(range(60))


def renew(lane: str, hub: LocalHub, root: Path, lifetime: int, seconds: int) -> None:
    """Sends without a break while tokens of `lifetime` seconds run out one after another."""
    name = f"renew-{lane}-{lifetime}"
    text = hub.create_device(name)
    with device(lane, hub, root, text, token_lifetime=lifetime, lag=True) as probe:
        probe.expect("desired", full=True)
        end = time.monotonic() + seconds
        numbers = []
        while time.monotonic() < end:
            numbers.append(probe.do("send", body=str(len(numbers))))
            numbers.append(probe.do("stream", size=5000, properties={"n": str(len(numbers))}))
            time.sleep(0.05)
        for number in numbers:
            probe.outcome(number)
        assert not [t for t in probe.told if t["event"] == "connection" and not t["up"]]
        assert not [t for t in probe.told if t["event"] == "error"]
        probe.do("stats")
        stats = probe.expect("stats")
        assert stats["failures"] == 0 and stats["retried"] == 0
        assert seconds // lifetime <= stats["renewals"] <= 2 * seconds // lifetime
    events = hub.wait_events(name, lambda found: len(found) >= len(numbers))
    marks = [e["properties"].get("n") or str(e["body"]) for e in events]
    assert sorted(map(int, marks)) == list(range(len(numbers)))


def test_tokens_are_renewed_without_loss(lane: str, hub: LocalHub, root: Path) -> None:
    renew(lane, hub, root, lifetime=4, seconds=11)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_tokens_of_20_seconds_for_5_minutes(lane: str, hub: LocalHub, root: Path) -> None:
    renew(lane, hub, root, lifetime=20, seconds=300)
