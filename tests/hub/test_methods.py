"""Direct methods, from the service side to a device and back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hubfixture import LocalHub
from mqttclient import Device
from vedette_tools.connection import CommandError, NotFound

METHODS = "$iothub/methods/POST/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def invoke(hub: LocalHub, path: str, name: str, payload: Any = None, **more: int) -> Any:
    body = {"methodName": name, "payload": payload, **more}
    return hub.service.request("POST", f"/twins/{path}/methods", body)


def answer(device: Device, status: int, payload: bytes) -> tuple[str, bytes]:
    """Answer the next call; returns its name and payload."""
    call = device.receive()
    match = re.fullmatch(r"\$iothub/methods/POST/([^/]+)/\?\$rid=(\w+)", call.topic)
    assert match, call.topic
    device.publish(f"$iothub/methods/res/{status}/?$rid={match[2]}", payload, qos=0)
    return match[1], call.payload


@pytest.mark.parametrize("module", [None, "agent"])
def test_a_call_and_its_answer(
    hub: LocalHub, background: ThreadPoolExecutor, module: str | None
) -> None:
    path = "m-1" + (f"/modules/{module}" if module else "")
    with Device(hub, hub.create_device("m-1", module)) as device:
        device.subscribe(METHODS)
        call = background.submit(invoke, hub, path, "collectNow", {"collector": "all"})
        name, payload = answer(device, 200, b'{"done": [1]}')
        assert name == "collectNow" and json.loads(payload) == {"collector": "all"}
        assert call.result() == {"status": 200, "payload": {"done": [1]}}


@pytest.mark.parametrize("payload", [None, 1, "text", [], {}])
def test_any_payload_and_any_status(
    hub: LocalHub, background: ThreadPoolExecutor, payload: Any
) -> None:
    with Device(hub, hub.create_device("m-2")) as device:
        device.subscribe(METHODS)
        call = background.submit(invoke, hub, "m-2", "echo", payload)
        assert json.loads(answer(device, 4711, json.dumps(payload).encode())[1]) == payload
        assert call.result() == {"status": 4711, "payload": payload}


def test_calls_at_the_same_time_are_told_apart(
    hub: LocalHub, background: ThreadPoolExecutor
) -> None:
    with Device(hub, hub.create_device("m-3")) as device:
        device.subscribe(METHODS)
        calls = [background.submit(invoke, hub, "m-3", "m", number) for number in range(3)]
        received = [device.receive() for _ in calls]
        for message in reversed(received):
            request_id = message.topic.partition("$rid=")[2]
            device.publish(f"$iothub/methods/res/200/?$rid={request_id}", message.payload, qos=0)
        assert [call.result()["payload"] for call in calls] == [0, 1, 2]


def test_a_device_that_is_not_online(hub: LocalHub) -> None:
    string = hub.create_device("m-4")
    with pytest.raises(NotFound, match="not online"):
        invoke(hub, "m-4", "m")
    with Device(hub, string), pytest.raises(NotFound, match="not online"):
        invoke(hub, "m-4", "m")  # connected, but not subscribed
    with pytest.raises(NotFound):
        invoke(hub, "unknown", "m")


def test_a_call_can_wait_for_the_device(hub: LocalHub, background: ThreadPoolExecutor) -> None:
    string = hub.create_device("m-5")
    call = background.submit(invoke, hub, "m-5", "m", connectTimeoutInSeconds=10)
    with Device(hub, string) as device:
        device.subscribe(METHODS)
        answer(device, 200, b"")
        assert call.result() == {"status": 200, "payload": None}


def test_what_the_broker_has_granted_is_in_force(
    hub: LocalHub, background: ThreadPoolExecutor
) -> None:
    """However much the hub has still to take in that came before the subscription."""
    with Device(hub, hub.create_device("m-11")) as device:

        def keep_busy() -> None:
            for _ in range(100):
                device.client.publish(f"{device.path}/messages/events/", bytes(100_000), qos=1)

        keep_busy()
        device.subscribe(METHODS)
        call = background.submit(invoke, hub, "m-11", "m")
        answer(device, 200, b"1")
        assert call.result()["payload"] == 1
        keep_busy()
        device.subscribe(DESIRED)
        hub.set_twin("m-11", {"a": 1})
        assert device.receive().topic.startswith("$iothub/twin/PATCH/properties/desired/")


def test_no_answer_in_time(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("m-6")) as device:
        device.subscribe(METHODS)
        begin = time.monotonic()
        with pytest.raises(CommandError, match="did not answer m within 5 s"):
            invoke(hub, "m-6", "m", responseTimeoutInSeconds=5)
        assert 4.9 < time.monotonic() - begin < 9
        late = device.receive().topic.partition("$rid=")[2]
        device.publish(f"$iothub/methods/res/200/?$rid={late}", b"1", qos=0)
        device.send("still connected")


def test_another_device_cannot_answer(hub: LocalHub, background: ThreadPoolExecutor) -> None:
    called, other = Device(hub, hub.create_device("m-7")), Device(hub, hub.create_device("m-8"))
    with called, other:
        called.subscribe(METHODS)
        call = background.submit(invoke, hub, "m-7", "m")
        message = called.receive()
        topic = message.topic.replace("POST/m", "res/200")
        other.publish(topic, b'"forged"', qos=0)
        other.send("done")
        hub.wait_events("m-8")
        called.publish(topic, b'"real"', qos=0)
        assert call.result()["payload"] == "real"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"methodName": ""}, "methodName"),
        ({"methodName": "a/b"}, "methodName"),
        ({"methodName": None}, "methodName"),
        ({"responseTimeoutInSeconds": 301}, "5 to 300"),
        ({"responseTimeoutInSeconds": 4}, "5 to 300"),
        ({"connectTimeoutInSeconds": "x"}, "0 to 300"),
        ({"payload": "x" * 131072}, "131072"),
    ],
)
def test_bad_calls(hub: LocalHub, change: dict[str, Any], says: str) -> None:
    hub.create_device("m-9")
    with pytest.raises(CommandError, match=says):
        body = {"methodName": "m", **change}
        hub.service.request("POST", "/twins/m-9/methods", body)


def test_an_answer_that_is_not_json(hub: LocalHub, background: ThreadPoolExecutor) -> None:
    with Device(hub, hub.create_device("m-10")) as device:
        device.subscribe(METHODS)
        call = background.submit(invoke, hub, "m-10", "m")
        answer(device, 200, b"{")
        with pytest.raises(CommandError, match="not JSON"):
            call.result()
    hub.twin("m-10")
