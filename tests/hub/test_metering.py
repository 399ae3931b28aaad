"""What is charged against the day's quota."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hubfixture import COMMAND, LocalHub
from mqttclient import Device
from vedette_tools.hub import metering
from vedette_tools.hub.store import Store

REFUSED = 135


@pytest.mark.parametrize(
    ("bag", "size", "units"),
    [
        ("", 0, 1),
        ("", 4096, 1),
        ("", 4097, 2),
        ("", 262144, 64),
        ("$.mid=abcd", 4092, 1),
        ("$.mid=abcd", 4093, 2),
        ("k=%C3%BC", 4093, 1),
        ("k=%C3%BC", 4094, 2),
        ("key", 4093, 1),
    ],
)
def test_units_of_a_message(bag: str, size: int, units: int) -> None:
    assert metering.message_units(bag, bytes(size)) == units


def call(hub: LocalHub, device: Device) -> None:
    """A method with a short request and an answer of over 4 KB."""
    device.subscribe("$iothub/methods/POST/#")
    with concurrent.futures.ThreadPoolExecutor() as background:
        body = {"methodName": "x", "payload": None}
        answer = background.submit(hub.service.request, "POST", "/twins/m/methods", body)
        request = device.receive()
        request_id = request.topic.partition("$rid=")[2]
        device.publish(f"$iothub/methods/res/200/?$rid={request_id}", json.dumps("x" * 5000))
        assert answer.result()["status"] == 200


def test_the_statistics_count_what_microsoft_charges(own_hub: LocalHub) -> None:
    hub = own_hub

    def statistics() -> dict[str, object]:
        done = subprocess.run([COMMAND, "hub", "statistics"], env=hub.env, capture_output=True)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    string = hub.create_device("m")
    with Device(hub, string) as device:
        device.send(b"x" * 5000)
        device.send(1)
        hub.wait_events("m", 2)
        hub.service.request("POST", "/vedette/messages/m", {"body": "x" * 9000})
        messages = 2 + 1 + 3
        device.report({"a": {"b": "x" * 4000}, "c": "x" * 1000})
        device.get_twin()
        hub.twin("m")
        hub.set_twin("m", {"a": 1})
        hub.service.request("POST", "/devices/query", {"query": "SELECT * FROM devices"})
        twins = 2 + 2 + 2 + 1 + 2
        call(hub, device)
        methods = 1 + 2
        assert statistics() == {
            "devices": 1,
            "connectedDevices": 1,
            "events": 2,
            "day": datetime.now(UTC).date().isoformat(),
            "meteredToday": messages + twins + methods,
            "dailyQuota": None,
        }
    hub.kill9()
    hub.start()
    assert statistics()["meteredToday"] == messages + twins + methods


def test_a_quota_that_is_used_up_closes_and_refuses(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path / "hub", daily_quota=3)
    hub.start()
    try:
        string = hub.create_device("q")
        with Device(hub, string) as device:
            device.send(1)
            device.send(2)
            assert hub.connected("q")
            device.send(b"x" * 5000)
            device.wait_closed()
        assert len(hub.wait_events("q", 3)) == 3  # what was acknowledged is there
        assert Device(hub, string).connect() == REFUSED
        hub.restart()
        assert Device(hub, string).connect() == REFUSED
        hub.stop()
        hub.daily_quota = 5
        hub.start()
        with Device(hub, string) as device:
            hub.set_twin("q", {"a": 1})  # by whomever it is used up
            device.wait_closed()
    finally:
        hub.stop()


def test_the_next_day_has_a_quota_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "hub.db")
    quota = metering.Quota(store, 2)
    monkeypatch.setattr(metering, "today", lambda: "2026-11-24")
    store.meter("2026-11-24", 1)
    assert not quota.check() and not quota.used_up()
    store.meter("2026-11-24", 1)
    assert quota.check() and quota.used_up()
    assert not quota.check()  # told once
    monkeypatch.setattr(metering, "today", lambda: "2026-11-25")
    assert not quota.used_up() and not quota.check()
    store.meter("2026-11-25", 5)
    assert quota.check() and quota.used_up()
