"""Who may connect, for how long, and on which topics."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub, wait_for
from mqttclient import API_VERSION, Device
from paho.mqtt.enums import MQTTProtocolVersion
from vedette_tools.hub import sas

REFUSED = 135  # paho's name for CONNACK 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": sas.make("localhost/devices/c-1", sas.new_key())},
        {"password": "SharedAccessSignature sr=localhost&sig=x"},
        {"password": "nonsense"},
        {"password": "SharedAccessSignature sr=a&sig=b&se=99999999999999999999"},
        {"resource": "localhost/devices/other"},
        {"resource": "localhost/devices/c"},
        {"lifetime": -1},
        {"client_id": "other"},
        {"username": f"localhost/other/{API_VERSION}"},
        {"username": "c-1"},
        {"username": f"localhost/c-1/unknown-module/{API_VERSION}"},
        {"protocol": MQTTProtocolVersion.MQTTv5},
        {"protocol": MQTTProtocolVersion.MQTTv31},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refused(hub: LocalHub, wrong: dict[str, object]) -> None:
    string = hub.create_device("c-1")
    assert Device(hub, string, **wrong).connect() == REFUSED  # type: ignore[arg-type]
    assert Device(hub, string).connect() == 0


@pytest.mark.parametrize(
    "resource",
    [
        "localhost/devices/c-2",
        "localhost:8883/devices/c-2",
        "LOCALHOST/devices/c-2",
        "localhost/devices",
        "localhost",
        "127.0.0.1:18883",
    ],
)
def test_a_token_for_the_device_or_above_is_taken(hub: LocalHub, resource: str) -> None:
    with Device(hub, hub.create_device("c-2"), resource=resource):
        pass


def test_a_module_needs_its_own_key_and_name(hub: LocalHub) -> None:
    module = hub.create_device("c-3", "m")
    device = hub.create_device("c-3")
    assert Device(hub, device + ";ModuleId=m").connect() == REFUSED
    with Device(hub, module):
        wait_for(lambda: hub.connected("c-3", "m"), bool)
        assert not hub.connected("c-3")


def test_a_disabled_device_is_dropped_and_refused(hub: LocalHub) -> None:
    string = hub.create_device("c-4")
    with Device(hub, string) as device:
        body = {"status": "disabled"}
        hub.service.request("PUT", "/devices/c-4", body, {"If-Match": "*"})
        device.wait_closed()
    assert Device(hub, string).connect() == REFUSED


def test_a_deleted_device_is_dropped_and_refused(hub: LocalHub) -> None:
    string = hub.create_device("c-5")
    with Device(hub, string) as device:
        hub.delete_device("c-5")
        device.wait_closed()
    assert Device(hub, string).connect() == REFUSED


def test_the_newest_connection_wins(hub: LocalHub) -> None:
    string = hub.create_device("c-6")
    with Device(hub, string) as first, Device(hub, string) as second:
        first.wait_closed()
        second.send("still here")
        assert hub.connected("c-6")
    wait_for(lambda: hub.connected("c-6"), lambda connected: not connected)


def test_the_connection_ends_with_its_token(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("c-7"), lifetime=2) as device:
        begin = time.monotonic()
        device.wait_closed()
        assert 0.5 < time.monotonic() - begin < 3
    wait_for(lambda: hub.connected("c-7"), lambda connected: not connected)


def test_a_silent_device_is_cut_at_one_and_a_half_times_its_keep_alive(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("c-8"), keepalive=2) as device:
        device.client.loop_stop()  # no PINGREQ any more
        begin = time.monotonic()
        wait_for(lambda: hub.connected("c-8"), lambda connected: not connected, 20)
        assert time.monotonic() - begin > 1.5


def test_kick(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("c-9")) as device:
        hub.kick("c-9")
        device.wait_closed()


@pytest.mark.parametrize(
    "topic",
    [
        "devices/c-10/messages/events/",
        "devices/other/messages/events/",
        "devices/c-1/messages/events/",
        "devices/c-11/messages/eventsx",
        "devices/c-11/messages/devicebound/",
        "devices/c-11/modules/m/messages/events/",
        "$iothub/other",
        "$iothub/twin/other/?$rid=1",
        "$hub/kick",
        "$hub/deliver",
        "$SYS/x",
        "free",
    ],
)
def test_publishing_elsewhere_closes_the_connection(hub: LocalHub, topic: str) -> None:
    with Device(hub, hub.create_device("c-11")) as device:
        device.client.publish(topic, b"forged", qos=0)
        if topic != "$SYS/x":  # mosquitto itself only drops these
            device.wait_closed()
    assert not [event for event in hub.events() if event["body"] == "forged"]


def test_qos_2_closes_the_connection(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("c-12")) as device:
        device.client.publish("devices/c-12/messages/events/", b"x", qos=2)
        device.wait_closed()


@pytest.mark.parametrize(
    ("topic", "asked", "granted"),
    [
        ("devices/c-13/messages/devicebound/#", 1, 1),
        ("devices/c-13/messages/devicebound/#", 2, 1),
        ("$iothub/twin/res/#", 0, 0),
        ("$iothub/twin/PATCH/properties/desired/#", 1, 1),
        ("$iothub/methods/POST/#", 0, 0),
        ("devices/other/messages/devicebound/#", 1, 128),
        ("devices/+/messages/devicebound/#", 1, 128),
        ("devices/c-13/messages/events/#", 1, 128),
        ("#", 0, 128),
        ("$hub/#", 0, 128),
        ("$SYS/#", 0, 128),
    ],
)
def test_subscriptions(hub: LocalHub, topic: str, asked: int, granted: int) -> None:
    with Device(hub, hub.create_device("c-13")) as device:
        assert device.subscribe(topic, asked) == granted


def test_a_sixth_subscription_closes_the_connection(hub: LocalHub) -> None:
    messages = "devices/c-18/messages/devicebound/"
    topics = ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#",
              "$iothub/methods/POST/#", messages + "#", messages + "a/#"]  # fmt: skip
    with Device(hub, hub.create_device("c-18")) as device:
        for topic in [*topics, *topics]:
            assert device.subscribe(topic) == 0
        assert device.get_twin()
        device.unsubscribe(topics[0])
        device.subscribe(messages + "b/#")
        device.send("still there")
        device.client.subscribe(topics[0])
        device.wait_closed()
    assert "c-18 has over 5 subscriptions" in hub.log.read_text()


def test_a_will_on_another_devices_topic_is_not_sent(hub: LocalHub) -> None:
    will = ("devices/c-1/messages/events/", b"forged will")
    with Device(hub, hub.create_device("c-14"), will=will) as device:
        device.abort()
        device.wait_closed()
    with Device(hub, hub.create_device("c-15")) as later:
        later.send("after")
    hub.wait_events("c-15")
    assert not [event for event in hub.events() if event["body"] == "forged will"]


def test_a_user_name_of_the_hubs_own_making_is_worth_nothing(hub: LocalHub) -> None:
    string = hub.create_device("c-16")
    for name in ("- $hub", "0123456789abcdef devices/c-1"):
        assert Device(hub, string, username=name).connect() == REFUSED


def test_no_key_and_no_token_is_logged(hub: LocalHub) -> None:
    string = hub.create_device("c-17")
    key = string.partition("SharedAccessKey=")[2]
    wrong = sas.make("localhost/devices/c-17", sas.new_key())
    assert Device(hub, string, password=wrong).connect() == REFUSED
    with Device(hub, string):
        pass
    log = hub.log.read_text()
    assert "c-17 refused: the token is signed with another key" in log
    owner_key = hub.connection["service_connection_string"].partition("SharedAccessKey=")[2]
    signature = wrong.partition("sig=")[2].partition("&")[0]
    assert not [secret for secret in (key, owner_key, signature) if secret in log]
