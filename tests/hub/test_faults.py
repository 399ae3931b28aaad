"""Faults on demand do what they say, and end."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from hubfixture import COMMAND, LocalHub
from mqttclient import Device
from vedette_tools.connection import CommandError

REFUSED = 135


@pytest.fixture(autouse=True)
def _cleared(hub: LocalHub) -> Iterator[None]:
    yield
    hub.clear_faults()


def test_throttle(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("f-1")) as device:
        device.get_twin()
        hub.fault("throttle")
        status, _, body = device.request("$iothub/twin/GET/")
        assert status == 429 and body["message"]
        assert device.report({"a": 1})[0] == 429
        hub.clear_faults()
        assert device.get_twin()["reported"] == {"$version": 1}


def test_quota(hub: LocalHub) -> None:
    string = hub.create_device("f-2")
    with Device(hub, string) as device:
        hub.fault("quota")
        device.wait_closed()
    assert Device(hub, string).connect() == REFUSED
    hub.clear_faults()
    with Device(hub, string):
        pass


def test_grace(hub: LocalHub) -> None:
    hub.fault("grace", seconds=1.5)
    with Device(hub, hub.create_device("f-3"), lifetime=1) as device:
        begin = time.monotonic()
        device.wait_closed()
        assert time.monotonic() - begin > 1.2


def test_outage(hub: LocalHub) -> None:
    string = hub.create_device("f-4")
    with Device(hub, string) as device:
        hub.fault("outage", for_=1)
        device.wait_closed()
        with pytest.raises(OSError):
            Device(hub, string).connect()
    begin = time.monotonic()
    Device.connected(hub, string).close()
    assert time.monotonic() - begin > 0.5


def test_stall(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("f-5")) as device:
        device.send("before")
        hub.fault("stall", for_=1)
        begin = time.monotonic()
        device.send("during")
        assert time.monotonic() - begin > 0.5
    assert [event["body"] for event in hub.wait_events("f-5", 2)] == ["before", "during"]


def test_a_slow_network(hub: LocalHub) -> None:
    string = hub.create_device("f-6")
    with Device(hub, string) as fast:
        hub.fault("network", latency_ms=100)
        fast.wait_closed()
        with Device(hub, string) as device:
            begin = time.monotonic()
            device.send("slow")
            assert 0.2 <= time.monotonic() - begin < 1
            hub.clear_faults()
            device.wait_closed()
    with Device.connected(hub, string) as device:
        begin = time.monotonic()
        device.send("fast")
        assert time.monotonic() - begin < 0.15


def test_a_lossy_network_loses_nothing(hub: LocalHub) -> None:
    hub.fault("network", loss=0.3)
    with Device(hub, hub.create_device("f-7")) as device:
        for number in range(10):
            device.send(number)
    assert [event["body"] for event in hub.wait_events("f-7", 10)] == list(range(10))


def test_the_command(hub: LocalHub) -> None:
    def fault(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "hub", "fault", *words], env=hub.env, capture_output=True, text=True
        )

    string = hub.create_device("f-8")
    assert fault("quota", "--for", "60").returncode == 0
    assert Device(hub, string).connect() == REFUSED
    assert fault("clear").returncode == 0
    with Device(hub, string) as device:
        slow = fault("network", "--latency-ms", "100", "--loss", "0.1", "--for", "60")
        assert slow.returncode == 0
        device.wait_closed()
    with Device(hub, string) as device:
        begin = time.monotonic()
        device.send("slow")
        assert time.monotonic() - begin >= 0.2
    assert fault("clear").returncode == 0
    wrong = fault("flood")
    assert wrong.returncode == 1 and "quota, stall, throttle" in wrong.stderr


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("grace", {}),
        ("grace", {"seconds": -1}),
        ("network", {"loss": 1}),
        ("network", {"latency_ms": "x"}),
        ("outage", {"for": True}),
        ("unknown", {}),
    ],
)
def test_bad_faults_are_refused(hub: LocalHub, kind: str, body: dict[str, object]) -> None:
    with pytest.raises(CommandError):
        hub.service.request("PUT", f"/vedette/faults/{kind}", json.loads(json.dumps(body)))
    with Device(hub, hub.create_device("f-9")):
        pass
