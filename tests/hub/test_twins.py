"""Twins as a device and the service side see them."""

from __future__ import annotations

import json

import pytest
from hubfixture import LocalHub
from mqttclient import Device
from vedette_tools.connection import CommandError

DESIRED = "$iothub/twin/PATCH/properties/desired/#"


def test_a_device_gets_its_twin_without_metadata(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("w-1")) as device:
        assert device.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        hub.set_twin("w-1", {"a": {"b": 1}})
        assert device.get_twin()["desired"] == {"a": {"b": 1}, "$version": 2}


def test_reported_properties_are_merged_and_versioned(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("w-2")) as device:
        assert device.report({"a": {"b": 1, "c": [1]}, "d": "x"}) == (204, "&$version=2", None)
        assert device.report({"a": {"b": None}, "d": None})[:2] == (204, "&$version=3")
        assert device.get_twin()["reported"] == {"a": {"c": [1]}, "$version": 3}
    reported = hub.twin("w-2")["properties"]["reported"]
    assert reported["$metadata"]["a"]["c"]["$lastUpdated"].endswith("Z")
    assert "b" not in reported["$metadata"]["a"] and "d" not in reported["$metadata"]


@pytest.mark.parametrize("payload", [[1], "text", {"a.b": 1}, {"a": 1 << 52}, {"a": "x" * 4097}])
def test_a_bad_report_is_answered_400_and_changes_nothing(hub: LocalHub, payload: object) -> None:
    string = hub.create_device("w-3")
    with Device(hub, string) as device:
        before = device.get_twin()
        status, _, body = device.report(payload)
        assert status == 400 and body["message"]
        assert device.get_twin() == before


def test_a_report_that_is_not_json_is_answered_400(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("w-4")) as device:
        device.get_twin()
        device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{")
        assert device.receive().topic == "$iothub/twin/res/400/?$rid=1"


def test_without_an_api_version_reports_are_answered_400(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("w-5"), query="") as device:
        assert device.get_twin()["desired"] == {"$version": 1}
        assert device.report({"a": 1})[0] == 400


def test_a_change_of_the_desired_properties_is_pushed(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("w-6")) as device:
        device.subscribe(DESIRED)
        hub.set_twin("w-6", {"a": {"b": None, "c": 2}})
        message = device.receive()
        assert message.topic == "$iothub/twin/PATCH/properties/desired/?$version=2"
        assert json.loads(message.payload) == {"a": {"b": None, "c": 2}, "$version": 2}
        device.unsubscribe(DESIRED)
        hub.set_twin("w-6", {"a": 3})
        assert device.nothing_arrives()


def test_what_was_desired_while_away_is_not_pushed(hub: LocalHub) -> None:
    string = hub.create_device("w-7")
    with Device(hub, string, clean=False) as device:
        device.subscribe(DESIRED)
    hub.set_twin("w-7", {"a": 1})
    with Device(hub, string, clean=False) as device:
        assert device.nothing_arrives()
        assert device.get_twin()["desired"] == {"a": 1, "$version": 2}


def test_a_persistent_session_keeps_its_subscriptions(hub: LocalHub) -> None:
    string = hub.create_device("w-8")
    with Device(hub, string, clean=False) as device:
        device.subscribe(DESIRED)
    with Device(hub, string, clean=False) as device:
        hub.set_twin("w-8", {"a": 1})
        assert device.receive().topic.endswith("$version=2")
    with Device(hub, string, clean=True) as device:
        hub.set_twin("w-8", {"a": 2})
        assert device.nothing_arrives()
    with Device(hub, string, clean=False) as device:
        hub.set_twin("w-8", {"a": 3})
        assert device.nothing_arrives()


def test_a_push_reaches_only_the_device_it_is_for(hub: LocalHub) -> None:
    module = hub.create_device("w-9", "m")
    device = hub.create_device("w-9")
    with Device(hub, module) as one, Device(hub, device) as other:
        for each in (one, other):
            each.subscribe(DESIRED)
        hub.set_twin("w-9", {"for": "module"}, module="m")
        assert json.loads(one.receive().payload)["for"] == "module"
        assert other.nothing_arrives()


def test_twins_by_etag(hub: LocalHub) -> None:
    hub.create_device("w-10")
    etag = hub.twin("w-10")["etag"]
    body = {"properties": {"desired": {"a": 1}}, "tags": {"where": "here"}}
    updated = hub.service.request("PATCH", "/twins/w-10", body, {"If-Match": f'"{etag}"'})
    assert updated["tags"] == {"where": "here"} and updated["etag"] != etag
    with pytest.raises(CommandError, match="etag"):
        hub.service.request("PATCH", "/twins/w-10", body, {"If-Match": f'"{etag}"'})
    replaced = hub.service.request("PUT", "/twins/w-10", {"properties": {"desired": {"b": 2}}})
    desired = replaced["properties"]["desired"]
    assert "a" not in desired and desired["b"] == 2 and desired["$version"] == 3
    assert replaced["version"] > updated["version"]


def test_the_limits_hold_for_the_service_side(hub: LocalHub) -> None:
    hub.create_device("w-11")
    with pytest.raises(CommandError, match="32768 is the limit"):
        hub.set_twin("w-11", {f"k{n}": "x" * 4000 for n in range(9)})
    assert hub.twin("w-11")["properties"]["desired"]["$version"] == 1
