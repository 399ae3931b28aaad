"""The hub's state survives a restart, and `kill -9` of each of its processes."""

from __future__ import annotations

from hubfixture import LocalHub
from mqttclient import Device


def test_a_restart_keeps_keys_devices_twins_and_messages(own_hub: LocalHub) -> None:
    hub = own_hub
    string = hub.create_device("d", "m")
    with Device(hub, string) as device:
        device.send(1)
        device.report({"a": 1})
    hub.set_twin("d", {"b": 2}, module="m")
    hub.wait_events("d")
    before, ca, twin = hub.connection, hub.ca.read_bytes(), hub.twin("d", "m")
    assert hub.stop() == 0
    hub.start()
    assert hub.connection == before and hub.ca.read_bytes() == ca
    assert hub.twin("d", "m") == twin and len(hub.events("d")) == 1
    with Device(hub, string) as device:
        device.send(2)
    assert [event["body"] for event in hub.wait_events("d", 2)] == [1, 2]


def test_subscriptions_of_a_persistent_session_survive(own_hub: LocalHub) -> None:
    hub = own_hub
    string = hub.create_device("d")
    with Device(hub, string, clean=False) as device:
        device.subscribe("$iothub/twin/PATCH/properties/desired/#")
        hub.kill9("broker")
        device.wait_closed()
    with Device.connected(hub, string, clean=False) as device:
        hub.set_twin("d", {"a": 1})
        assert device.receive().topic.endswith("?$version=2")
    hub.kill9("hub")
    hub.start()
    with Device.connected(hub, string, clean=False) as device:
        hub.set_twin("d", {"a": 2})
        assert device.receive().topic.endswith("?$version=3")
