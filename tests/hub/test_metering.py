"""What is charged against the day's quota."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from datetime import UTC, datetime

import pytest
from hubfixture import COMMAND, LocalHub
from mqttclient import Device
from vedette_tools.hub import metering


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
        }
    hub.kill9()
    hub.start()
    assert statistics()["meteredToday"] == messages + twins + methods
