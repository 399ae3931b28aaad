"""Telemetry: what a device publishes is in the hub, as it was sent and as who it was."""

from __future__ import annotations

import pytest
from hubfixture import LocalHub
from mqttclient import Device, encoded


def test_a_message_arrives_with_its_identity_body_and_properties(hub: LocalHub) -> None:
    bag = {"$.ct": "application/json", "$.ce": "utf-8", "$.mid": "m 1", "lät": "a&b=c"}
    with Device(hub, hub.create_device("t-1")) as device:
        device.send({"x": [1, 2]}, encoded(bag))
    (event,) = hub.wait_events("t-1")
    assert event["deviceId"] == "t-1" and event["moduleId"] is None
    assert event["body"] == {"x": [1, 2]}
    assert event["properties"] == {"lät": "a&b=c"}
    assert event["systemProperties"] == {
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "$.mid": "m 1",
    }
    assert event["enqueuedTimeUtc"].endswith("Z")


def test_a_module_sends_as_itself(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("t-2", "agent")) as module:
        module.send("hello")
    (event,) = hub.wait_events("t-2")
    assert (event["deviceId"], event["moduleId"], event["body"]) == ("t-2", "agent", "hello")


@pytest.mark.parametrize(
    ("body", "shown", "encoding"),
    [
        (b"no json", "no json", None),
        (b"\xff\x00", "/wA=", "base64"),
        (b"", "", None),
    ],
)
def test_a_body_that_is_not_json(
    hub: LocalHub, request: pytest.FixtureRequest, body: bytes, shown: str, encoding: str | None
) -> None:
    name = f"t-3-{len(body)}"
    with Device(hub, hub.create_device(name)) as device:
        device.send(body)
    (event,) = hub.wait_events(name)
    assert (event["body"], event.get("bodyEncoding")) == (shown, encoding)


def test_retain_becomes_a_property(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("t-4")) as device:
        device.publish("devices/t-4/messages/events/a=1", b"1", retain=True)
    (event,) = hub.wait_events("t-4")
    assert event["properties"] == {"a": "1", "mqtt-retain": "true"}


def test_a_will_is_a_message_that_says_so(hub: LocalHub) -> None:
    will = ("devices/t-5/messages/events/a=1", b"gone")
    device = Device(hub, hub.create_device("t-5"), will=will)
    with device:
        device.abort()
        device.wait_closed()
    (event,) = hub.wait_events("t-5")
    assert event["body"] == "gone"
    assert event["properties"] == {"a": "1", "iothub-MessageType": "Will"}


def test_order_is_kept(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("t-6")) as device:
        for number in range(200):
            device.client.publish("devices/t-6/messages/events/", str(number), qos=1)
        device.send(200)
    events = hub.wait_events("t-6", 201)
    assert [event["body"] for event in events] == list(range(201))


def test_256_kb_is_the_limit(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("t-7")) as device:
        device.send(b"x" * 262144)
        device.client.publish("devices/t-7/messages/events/", b"x" * 262145, qos=1)
        device.wait_closed()
    (event,) = hub.wait_events("t-7")
    assert len(event["body"]) == 262144
