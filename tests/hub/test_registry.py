"""The service side's registry: many devices at once, queries, statistics, error texts."""

from __future__ import annotations

from typing import Any

import pytest
from hubfixture import LocalHub
from hypothesis import given
from hypothesis import strategies as st
from mqttclient import Device
from vedette_tools.connection import CommandError, NotFound
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.query import Query

TWIN: dict[str, Any] = {
    "deviceId": "d-1",
    "status": "enabled",
    "tags": {"room": {"floor": 4}, "open": True, "note": "it's"},
    "properties": {"reported": {"heap": 1.5, "gone": None}},
}


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ("", True),
        ("WHERE deviceId = 'd-1'", True),
        ("where deviceId != 'd-1'", False),
        ("WHERE status <> 'disabled' AND tags.room.floor >= 4", True),
        ("WHERE tags.room.floor < 4 OR properties.reported.heap = 1.5", True),
        ("WHERE tags.room.floor > 3 AND tags.room.floor > 4 OR status = 'enabled'", True),
        ("WHERE tags.room.floor > 4 AND (tags.open = true OR status = 'enabled')", False),
        ("WHERE NOT tags.open = true", False),
        ("WHERE NOT (tags.open = false)", True),
        ("WHERE tags.open = 1", False),
        ("WHERE tags.note = 'it\\'s'", True),
        ('WHERE tags.note = "it\'s"', True),
        ("WHERE tags.room > 4", False),
        ("WHERE tags.missing != 1", False),
        ("WHERE deviceId < 5", False),
        ("WHERE IS_DEFINED(tags.room.floor) AND NOT is_defined(tags.missing)", True),
        ("WHERE properties.reported.gone = null", True),
    ],
)
def test_a_query_chooses(condition: str, true: bool) -> None:
    assert Query.parse(f"SELECT * FROM devices {condition}").matches(TWIN) is true


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SELECT deviceId FROM devices", "only SELECT"),
        ("SELECT * FROM devices.modules", "only SELECT"),
        ("SELECT * FROM devices WHERE", "a path is expected"),
        ("SELECT * FROM devices WHERE deviceId", "a comparison"),
        ("SELECT * FROM devices WHERE deviceId = other", "a string, a number"),
        ("SELECT * FROM devices WHERE deviceId = 'd", "at character 39"),
        ("SELECT * FROM devices WHERE (deviceId = 'd'", "'\\)' is expected"),
        ("SELECT * FROM devices WHERE deviceId = 'd' status = 'x'", "AND, OR"),
        ("SELECT * FROM devices WHERE " + "(" * 500, "too deeply"),
        (7, "has to be a string"),
    ],
)
def test_a_query_that_is_none_says_where(text: object, error: str) -> None:
    with pytest.raises(RequestError, match=error):
        Query.parse(text)


@given(
    st.lists(st.sampled_from("SELECT * FROM devices WHERE tags.a = < ( ) NOT 'x' 1 AND".split()))
)
def test_no_query_does_any_harm(words: list[str]) -> None:
    try:
        query = Query.parse("SELECT * FROM devices WHERE " + " ".join(words))
    except RequestError:
        return
    assert query.matches(TWIN) in (True, False)


def ask(hub: LocalHub, query: str, **headers: str) -> list[str]:
    body = {"query": query}
    return [
        each["deviceId"] for each in hub.service.request("POST", "/devices/query", body, headers)
    ]


def test_a_query_of_the_registry_sees_twins_and_connections(own_hub: LocalHub) -> None:
    hub = own_hub
    for name in ("q-1", "q-2", "q-3"):
        string = hub.create_device(name)
        hub.service.request("PATCH", f"/twins/{name}", {"tags": {"room": 4}})
    with Device(hub, string) as device:
        device.report({"heap": 7})
        assert ask(hub, "SELECT * FROM devices WHERE connectionState = 'Connected'") == ["q-3"]
        assert hub.service.request("GET", "/statistics/service") == {"connectedDeviceCount": 1}
    assert ask(hub, "SELECT * FROM devices WHERE properties.reported.heap = 7") == ["q-3"]
    page = {"x-ms-max-item-count": "2"}
    rooms = "SELECT * FROM devices WHERE tags.room = 4"
    assert ask(hub, rooms, **page) == ["q-1", "q-2"]
    assert ask(hub, rooms, **page, **{"x-ms-continuation": "q-2"}) == ["q-3"]


def change(hub: LocalHub, devices: list[dict[str, Any]]) -> None:
    hub.service.request("POST", "/devices", devices)


def test_many_devices_at_once(own_hub: LocalHub) -> None:
    hub = own_hub
    change(hub, [{"id": name, "importMode": "create"} for name in ("b-1", "b-2")])
    change(hub, [{"id": "b-1", "importMode": "update", "status": "disabled", "tags": {"a": 1}}])
    assert hub.twin("b-1")["tags"] == {"a": 1}
    counts = {"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1}
    assert hub.service.request("GET", "/statistics/devices") == counts
    with pytest.raises(CommandError, match="'b-1' is there already"):
        change(hub, [{"id": name, "importMode": "create"} for name in ("b-1", "b-3")])
    etag = hub.service.request("GET", "/devices/b-3")["etag"]
    with pytest.raises(CommandError, match="etag"):
        change(hub, [{"id": "b-3", "importMode": "deleteIfMatchETag", "eTag": "other"}])
    change(hub, [{"id": "b-3", "importMode": "deleteIfMatchETag", "eTag": etag}])
    change(hub, [{"id": "b-1", "importMode": "delete"}])
    assert hub.service.request("GET", "/statistics/devices")["totalDeviceCount"] == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        [7],
        [{"importMode": "create"}],
        [{"id": "a b"}],
        [{"id": "b-4", "importMode": "explode"}],
        [{}] * 101,
    ],
)
def test_a_list_that_is_none_of_devices_is_refused(hub: LocalHub, body: Any) -> None:
    with pytest.raises(CommandError):
        hub.service.request("POST", "/devices", body)


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/devices/nope", "no device 'nope'"),
        ("/devices/nope/modules/m", "no module 'm' of device 'nope'"),
        ("/twins/nope", "no device 'nope'"),
        ("/enrollments/nope", "no enrolment of 'nope'"),
    ],
)
def test_what_is_not_there_is_named_with_the_next_step(
    hub: LocalHub, path: str, missing: str
) -> None:
    with pytest.raises(NotFound, match=missing) as error:
        hub.service.request("GET", path)
    assert "`vedette device" in error.value.next_step
