"""Cloud-to-device messages: queued, delivered once, kept until they are acknowledged."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hubfixture import LocalHub, wait_for
from mqttclient import Device, Message
from vedette_tools.connection import CommandError
from vedette_tools.hub import bag, feedback
from vedette_tools.hub.store import CloudMessage, Store


def send(hub: LocalHub, name: str, body: Any, **more: Any) -> None:
    hub.service.request("POST", f"/vedette/messages/{name}", {"body": body, **more})


def pending(hub: LocalHub, name: str) -> int:
    return int(hub.service.request("GET", f"/devices/{name}")["cloudToDeviceMessageCount"])


def properties(message: Message) -> bag.Bag:
    return bag.decode(message.topic.rpartition("/")[2])


@pytest.mark.parametrize("qos", [0, 1])
def test_a_connected_device_gets_it_at_once(hub: LocalHub, qos: int) -> None:
    name = f"d-{qos}"
    with Device(hub, hub.create_device(name)) as device:
        device.subscribe(f"devices/{name}/messages/devicebound/#", qos)
        send(hub, name, "hello", properties={"a b": "c&d", "n": None, "e": ""},
             systemProperties={"$.mid": "m1"})  # fmt: skip
        message = device.receive()
        assert message.payload == b"hello" and message.qos == qos
        assert message.topic.startswith(f"devices/{name}/messages/devicebound/%24.to=")
        assert properties(message) == {
            "$.to": f"/devices/{name}/messages/devicebound",
            "$.mid": "m1",
            "a b": "c&d",
            "n": None,
            "e": "",
        }
        wait_for(lambda: pending(hub, name), lambda count: count == 0)


def test_an_absent_device_gets_it_in_order_and_once(hub: LocalHub) -> None:
    string = hub.create_device("d-2")
    for number in range(50):
        send(hub, "d-2", number)
    assert pending(hub, "d-2") == 50
    with pytest.raises(CommandError, match="50 messages wait"):
        send(hub, "d-2", 50)
    with Device(hub, string) as device:
        assert device.nothing_arrives()  # not subscribed yet
        device.subscribe("devices/d-2/messages/devicebound/#", 1)
        assert [int(device.receive().payload) for _ in range(50)] == list(range(50))
        wait_for(lambda: pending(hub, "d-2"), lambda count: count == 0)
    with Device(hub, string) as device:
        device.subscribe("devices/d-2/messages/devicebound/#", 1)
        assert device.nothing_arrives()


def test_a_persistent_session_gets_it_without_subscribing_again(hub: LocalHub) -> None:
    string = hub.create_device("d-3")
    with Device(hub, string, clean=False) as device:
        device.subscribe("devices/d-3/messages/devicebound/#", 1)
    send(hub, "d-3", "waited")
    with Device(hub, string, clean=False) as device:
        assert device.receive().payload == b"waited"
        assert device.nothing_arrives()


@pytest.mark.parametrize("clean", [True, False])
def test_what_was_not_acknowledged_comes_again(hub: LocalHub, clean: bool) -> None:
    name = f"d-4-{clean}"
    string = hub.create_device(name)
    with Device(hub, string, clean=clean, manual_ack=True) as device:
        device.subscribe(f"devices/{name}/messages/devicebound/#", 1)
        for body in "abc":
            send(hub, name, body)
        first = device.receive()
        assert [device.receive().payload for _ in range(2)] == [b"b", b"c"]
        device.client.ack(first.mid, first.qos)
        wait_for(lambda: pending(hub, name), lambda count: count == 2)
        device.abort()
        device.wait_closed()
    with Device(hub, string, clean=clean) as device:
        if clean:
            device.subscribe(f"devices/{name}/messages/devicebound/#", 1)
        assert [device.receive().payload for _ in range(2)] == [b"b", b"c"]
        assert device.nothing_arrives()


def test_it_expires(hub: LocalHub) -> None:
    string = hub.create_device("d-5")
    send(hub, "d-5", "short", lifetimeSeconds=0)
    send(hub, "d-5", "long")
    time.sleep(0.01)
    with Device(hub, string) as device:
        device.subscribe("devices/d-5/messages/devicebound/#", 1)
        assert device.receive().payload == b"long"


def test_what_has_expired_takes_no_place(hub: LocalHub) -> None:
    hub.create_device("d-10")
    for _ in range(50):
        send(hub, "d-10", "short", lifetimeSeconds=0)
    time.sleep(0.01)
    send(hub, "d-10", "long")
    assert pending(hub, "d-10") == 1


def test_binary_and_64_kb(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("d-6")) as device:
        device.subscribe("devices/d-6/messages/devicebound/#", 1)
        send(hub, "d-6", "/wA=", bodyEncoding="base64")
        assert device.receive().payload == b"\xff\x00"
        send(hub, "d-6", "x" * 65536)
        assert len(device.receive().payload) == 65536
        with pytest.raises(CommandError, match="65536 is the limit"):
            send(hub, "d-6", "x" * 65537)


@pytest.mark.parametrize("outcome", ["Success", "Expired", "DeliveryCountExceeded", "Purged"])
@pytest.mark.parametrize("wanted", ["full", "positive", "negative", "none", None])
def test_feedback_is_for_those_who_want_it(outcome: str, wanted: str | None) -> None:
    properties = {"$.mid": "m 1", **({"iothub-ack": wanted} if wanted else {})}
    record = feedback.record(CloudMessage("d", 0, 0, bag.encode(properties), b""), outcome, "7")
    good = outcome == "Success"
    if wanted == "full" or wanted == ("positive" if good else "negative"):
        assert record and record.pop("enqueuedTimeUtc")
        assert record == {
            "originalMessageId": "m 1",
            "statusCode": outcome,
            "description": outcome,
            "deviceId": "d",
            "deviceGenerationId": "7",
        }
    else:
        assert record is None


def test_feedback_is_kept_until_it_is_taken(own_hub: LocalHub) -> None:
    hub = own_hub
    wanted = {"properties": {"iothub-ack": "full"}}
    string = hub.create_device("d")
    send(hub, "d", "taken", systemProperties={"$.mid": "1"}, **wanted)
    with Device(hub, string) as device:
        device.subscribe("devices/d/messages/devicebound/#", 1)
        device.receive()
        wait_for(lambda: pending(hub, "d"), lambda count: count == 0)
    send(hub, "d", "purged", systemProperties={"$.mid": "2"}, **wanted)
    hub.service.request("DELETE", "/devices/d/commands")
    hub.kill9()
    store = Store(hub.state / "hub.db")
    told = [(each["originalMessageId"], each["statusCode"]) for _, each in store.feedback()]
    store.close()
    hub.start()
    assert told == [("1", "Success"), ("2", "Purged")]


def test_purge_and_deletion(hub: LocalHub) -> None:
    hub.create_device("d-7")
    send(hub, "d-7", 1)
    assert hub.service.request("DELETE", "/devices/d-7/commands")["totalMessagesPurged"] == 1
    send(hub, "d-7", 2)
    hub.delete_device("d-7")
    hub.create_device("d-7")
    assert pending(hub, "d-7") == 0


@pytest.mark.parametrize("process", ["hub", "broker"])
def test_the_queue_survives_kill_9(own_hub: LocalHub, process: str) -> None:
    hub = own_hub
    string = hub.create_device("d")
    for number in range(3):
        send(hub, "d", number)
    with Device(hub, string, manual_ack=True) as device:
        device.subscribe("devices/d/messages/devicebound/#", 1)
        first = [device.receive() for _ in range(3)][0]
        device.client.ack(first.mid, first.qos)
        wait_for(lambda: pending(hub, "d"), lambda count: count == 2)
        hub.kill9(process)
        device.wait_closed()
    if process == "hub":
        hub.start()
    with Device.connected(hub, string) as device:
        device.subscribe("devices/d/messages/devicebound/#", 1)
        assert [device.receive().payload for _ in range(2)] == [b"1", b"2"]
        assert device.nothing_arrives()
