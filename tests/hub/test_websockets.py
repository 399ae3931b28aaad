"""MQTT over WebSockets is the same hub."""

from __future__ import annotations

import pytest
from hubfixture import LocalHub, wait_for
from mqttclient import Device
from vedette_tools.hub import sas

REFUSED = 135


def test_telemetry_and_twin(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("ws-1"), websockets=True) as device:
        device.send(b"x" * 262144)
        device.report({"a": "b" * 4000})
        assert device.get_twin()["reported"]["a"] == "b" * 4000
        assert hub.connected("ws-1")
    wait_for(lambda: hub.connected("ws-1"), lambda connected: not connected)
    assert len(hub.wait_events("ws-1")[0]["body"]) == 262144


def test_the_rules_are_the_same(hub: LocalHub) -> None:
    string = hub.create_device("ws-2")
    wrong = sas.make("localhost/devices/ws-2", sas.new_key())
    assert Device(hub, string, websockets=True, password=wrong).connect() == REFUSED
    with Device(hub, string, websockets=True) as device:
        assert device.subscribe("devices/other/messages/devicebound/#", 1) == 128
        device.client.publish("devices/ws-2/messages/events/", b"x", qos=2)
        device.wait_closed()
    with Device(hub, string, websockets=True) as device:
        hub.kick("ws-2")
        device.wait_closed()


def test_an_outage_closes_and_refuses(own_hub: LocalHub) -> None:
    hub = own_hub
    string = hub.create_device("d")
    with Device(hub, string, websockets=True) as device:
        hub.fault("outage")
        device.wait_closed()
        with pytest.raises(OSError):
            Device(hub, string, websockets=True).connect()
        hub.clear_faults()
    Device.connected(hub, string, websockets=True).close()
    assert "Traceback" not in hub.log.read_text()
