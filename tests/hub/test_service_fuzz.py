"""Whatever the service side sends, the API answers as IoT Hub does, with no error of its own."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hubfixture import LocalHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mqttclient import Device
from test_hostile import NO_JSON

FIXTURES = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 2**63, 1e308])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["enabled", "create", "sas", "x509", "*", "\0", "é", "base64"])
)
anything = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3)
    ),
    max_leaves=6,
)


def places(model: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a document, to the whole first."""
    yield ()
    if isinstance(model, dict | list):
        for key, value in model.items() if isinstance(model, dict) else enumerate(model):
            yield from ((key, *rest) for rest in places(value))


def replaced(model: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place."""
    if not place:
        return value
    first, *rest = place
    copy = model.copy()
    copy[first] = replaced(model[first], tuple(rest), value)
    return copy


KEY = "A" * 32
AUTHENTICATION = {
    "type": "sas",
    "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY},
    "x509Thumbprint": {"primaryThumbprint": "A" * 40, "secondaryThumbprint": "A" * 64},
}
TWIN = {"tags": {"a": 1}, "properties": {"desired": {"a": {"b": 1}}, "reported": {}}}
IDENTITY = {
    "deviceId": "f-1",
    "status": "enabled",
    "statusReason": "x",
    "capabilities": {"iotEdge": False},
    "authentication": AUTHENTICATION,
    "managedBy": "x",
}
ENROLMENT = {
    "deviceId": "f-1",
    "provisioningStatus": "enabled",
    "initialTwin": TWIN,
    "attestation": {
        "type": "symmetricKey",
        "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY},
        "x509": {
            "clientCertificates": {"primary": {"certificate": "AAAA"}},
            "signingCertificates": {"primary": {"certificate": "AAAA"}},
        },
    },
}
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "identity": ("PUT", "/devices/f-1", IDENTITY),
    "module": ("PUT", "/devices/f-1/modules/m", IDENTITY),
    "many": ("POST", "/devices", [{"id": "f-2", "importMode": "update", **IDENTITY, **TWIN}]),
    "twin": ("PATCH", "/twins/f-1", TWIN),
    "whole twin": ("PUT", "/twins/f-1", TWIN),
    "query": ("POST", "/devices/query", {"query": "SELECT * FROM devices WHERE deviceId = 1"}),
    "method": (
        "POST",
        "/twins/f-1/methods",
        {"methodName": "m", "payload": 1, "responseTimeoutInSeconds": 5,
         "connectTimeoutInSeconds": 0},
    ),
    "enrolment": ("PUT", "/enrollments/f-1", ENROLMENT),
    "group": ("PUT", "/enrollmentGroups/f-1", ENROLMENT),
    "message": (
        "POST",
        "/vedette/messages/f-3",
        {"body": "AAAA", "bodyEncoding": "base64", "properties": {"a": "b"},
         "systemProperties": {"$.mid": "1"}, "lifetimeSeconds": 0},
    ),
    "authority": ("PUT", "/vedette/authorities/f", {"certificate": "AAAA"}),
    "fault": ("PUT", "/vedette/faults/throttle", {"for": 0}),
    "grace": ("PUT", "/vedette/faults/grace", {"for": 0, "seconds": 1}),
}  # fmt: skip


class Service:
    """The hub's API, by a connection that is kept."""

    def __init__(self, hub: LocalHub) -> None:
        self._token = hub.service.token()
        context = ssl.create_default_context(cafile=str(hub.ca))
        self.connection = http.client.HTTPSConnection(
            "localhost", hub.ports[1], context=context, timeout=20
        )

    def ask(self, method: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body, {"Authorization": self._token, **headers})
        response = self.connection.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def service(hub: LocalHub) -> Iterator[Service]:
    for name in ("f-1", "f-3"):
        hub.create_device(name)
    service = Service(hub)
    with closing(service.connection):
        yield service
    hub.clear_faults()


def check(answer: tuple[int, bytes]) -> None:
    """What is refused says why, as IoT Hub does."""
    status, body = answer
    assert status < 500, answer
    if status >= 400:
        document = json.loads(body)
        assert document.get("Message", "").startswith("ErrorCode:") or "errors" in document


@pytest.mark.parametrize("name", REQUESTS)
@FIXTURES
@given(data=st.data())
def test_a_document_with_anything_anywhere_is_answered(
    service: Service, name: str, data: st.DataObject
) -> None:
    method, path, model = REQUESTS[name]
    place = data.draw(st.sampled_from(list(places(model))))
    document = replaced(model, place, data.draw(anything))
    check(service.ask(method, path, json.dumps(document).encode(), **{"If-Match": "*"}))


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    "body",
    [
        *NO_JSON,
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"{",
    ],
)
def test_a_body_that_json_readers_trip_over_is_refused(
    service: Service, name: str, body: bytes
) -> None:
    method, path, _ = REQUESTS[name]
    answer = service.ask(method, path, body)
    check(answer)
    assert answer[0] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/devices?top=x"),
        ("GET", "/devices?top=-1"),
        ("GET", "/devices/%00"),
        ("GET", "/devices/%ff"),
        ("GET", "/devices/%C3%A9"),
        ("GET", "/devices/a%2Fb"),
        ("GET", "/devices/" + "a" * 4000),
        ("PUT", "/devices/a%2F..%2Fb"),
        ("PUT", "/vedette/authorities/%ff"),
        ("GET", "/vedette/events?since=99999999999999999999"),
        ("GET", "/vedette/events?after=999999999999999"),
        ("GET", "/vedette/events?last=x"),
        ("GET", "/vedette/events?device=%ff"),
        ("PUT", "/enrollments/%ff"),
        ("PUT", "/enrollments/a%2Fb"),
        ("DELETE", "/enrollmentGroups/%ff"),
        ("PUT", "/vedette/faults/%ff"),
        ("DELETE", "/vedette/faults/%ff"),
    ],
)
def test_a_path_that_is_wrong_is_answered(service: Service, method: str, path: str) -> None:
    status, body = service.ask(method, path, b"{}")
    assert status < 500, body


@pytest.mark.parametrize(
    "token", ["sr=\xff&sig=a&se=9999999999", "sr=a&sig=\xff&se=9999999999", "\xff"]
)
def test_a_token_of_any_bytes_is_refused(service: Service, token: str) -> None:
    answer = service.ask("GET", "/devices", b"", Authorization=f"SharedAccessSignature {token}")
    check(answer)
    assert answer[0] == 401


def test_a_method_is_called_by_a_name_that_a_topic_can_hold(
    hub: LocalHub, service: Service
) -> None:
    with Device(hub, hub.create_device("f-4")) as device:
        device.subscribe("$iothub/methods/POST/#")
        for name in ("a\0b", "a\nb", "\x7f"):
            body = json.dumps({"methodName": name, "responseTimeoutInSeconds": 5}).encode()
            assert service.ask("POST", "/twins/f-4/methods", body)[0] == 400


def test_a_message_is_as_long_with_its_properties_as_a_topic_can_hold(
    hub: LocalHub, service: Service
) -> None:
    with Device(hub, hub.create_device("f-5")) as device:
        device.subscribe("devices/f-5/messages/devicebound/#", 1)
        for size, status in ((70_000, 413), (60, 204)):
            body = json.dumps({"body": "b", "properties": {"a": "é" * size}}).encode()
            answer = service.ask("POST", "/vedette/messages/f-5", body)
            assert answer[0] == status, answer
        assert device.receive().payload == b"b"
