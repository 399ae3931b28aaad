"""Whatever a device sends, the hub answers or closes, and goes on."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest
from hubfixture import LocalHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mqttclient import Device

FIXTURES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
AGENT = "%24.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1"
REPORT = "$iothub/twin/PATCH/properties/reported/"
NO_JSON = (  # what JSON readers take for it, or trip over
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"a":NaN}',
    b'{"a":1e999}',
    b'{"a":"\\ud800"}',
    b'{"a":' + b"9" * 5000 + b"}",
    b"\xff",
)

numbers = st.integers() | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=10),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=10), below, max_size=3)
    ),
)


@pytest.fixture(scope="module")
def device(hub: LocalHub) -> Any:
    with Device(hub, hub.create_device("x-1")) as device:
        yield device


@FIXTURES
@given(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_report_is_answered(device: Device, payload: bytes) -> None:
    device.get_twin()
    device.publish(f"{REPORT}?$rid=9", payload)
    assert device.receive().topic.startswith(
        ("$iothub/twin/res/400/?$rid=9", "$iothub/twin/res/204/?$rid=9&$version=")
    )


@pytest.mark.parametrize(
    "payload",
    [
        *NO_JSON,
        b'{"\\u0000":1}',
        b"",
    ],
)
def test_what_json_readers_trip_over(hub: LocalHub, device: Device, payload: bytes) -> None:
    before = device.get_twin()
    device.publish(f"{REPORT}?$rid=9", payload)
    assert device.receive().topic == "$iothub/twin/res/400/?$rid=9"
    assert device.get_twin() == before
    count = len(hub.events("x-1"))
    device.publish(f"{device.path}/messages/events/{AGENT}", payload)
    device.publish(f"{device.path}/messages/events/", payload)
    hub.wait_events("x-1", count + 2)


def test_messages_of_the_agent_nested_about_as_deeply_as_can_be_read(
    hub: LocalHub, device: Device
) -> None:
    before = len(hub.events("x-1"))
    depths = range(900, 1000)
    for depth in depths:
        body = b'{"Events":' + b"[" * depth + b"]" * depth + b"}"
        device.publish(f"{device.path}/messages/events/{AGENT}", body)
    hub.wait_events("x-1", before + len(depths))


@FIXTURES
@given(st.text(st.characters(exclude_characters="#+", exclude_categories=["C"])))
def test_any_property_bag_is_stored(hub: LocalHub, device: Device, text: str) -> None:
    before = len(hub.events("x-1"))
    device.publish(f"{device.path}/messages/events/{text}", b"1")
    hub.wait_events("x-1", before + 1)


@pytest.mark.parametrize("topic", ["GET/", "GET", "PATCH/properties/reported/", "GET/?", "x"])
def test_twin_requests_without_an_id(hub: LocalHub, topic: str) -> None:
    with Device(hub, hub.create_device("x-2")) as device:
        device.subscribe("$iothub/twin/res/#")
        device.client.publish(f"$iothub/twin/{topic}", b"{}", qos=0)
        if topic == "GET/?":
            assert device.receive().topic == "$iothub/twin/res/200/?$rid="
        else:
            device.wait_closed()


@pytest.mark.parametrize(
    "packet",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x00",
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x00" * 100,
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00",
        b"\x32\x05\x00\x03a/b",
    ],
)
def test_bytes_that_are_no_connect_are_cut_off(hub: LocalHub, packet: bytes) -> None:
    context = ssl.create_default_context(cafile=str(hub.ca))
    with socket.create_connection((hub.host, hub.port), 10) as plain:
        with context.wrap_socket(plain, server_hostname=hub.host) as connection:
            connection.sendall(packet)
            received = b""
            try:
                while data := connection.recv(100):
                    received += data
            except ConnectionError:
                pass
            assert received in (b"", b"\x20\x02\x00\x05", b"\x20\x02\x00\x02", b"\x20\x02\x00\x01")
    with Device(hub, hub.create_device("x-3")) as device:
        device.send("the hub goes on")


def test_a_message_of_the_agent_is_held_against_the_schema(hub: LocalHub) -> None:
    event = {
        "Id": "00000000-0000-4000-8000-000000000000",
        "Name": "Heartbeat",
        "EventType": "Operational",
        "Category": "Periodic",
        "PayloadSchemaVersion": "1.0",
        "TimestampUTC": "2026-01-01T00:00:00Z",
        "IntervalSeconds": 60,
        "IsEmpty": False,
        "Payload": [{"uptime": 60}],
    }
    good = {
        "AgentVersion": "1.0.0",
        "AgentId": "00000000-0000-4000-8000-000000000001",
        "MessageSchemaVersion": "1.0",
        "Events": [event],
    }
    bad = {**good, "Events": [{**event, "IntervalSeconds": "60"}]}
    with Device(hub, hub.create_device("x-4")) as device:
        device.send(good, AGENT)
        device.send(bad, AGENT)
        device.send(bad)  # not the agent's
    events = hub.wait_events("x-4", 3)
    assert "schemaError" not in events[0] and "schemaError" not in events[2]
    assert events[1]["schemaError"].startswith("$.Events[0].IntervalSeconds")
    assert "x-4 sent a message that breaks the schema" in hub.log.read_text()
