"""The provisioning service: from a registration to a device that is connected to its hub."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hubfixture import LocalHub
from mqttclient import Device
from vedette_tools.connection import CommandError
from vedette_tools.hub import sas

REFUSED = 135
API = "api-version=2019-03-31"


def registration(hub: LocalHub, name: str, key: str, **wrong: Any) -> Device:
    """A connection to the provisioning service."""
    scope = hub.connection["dps_scope"]
    resource = wrong.pop("resource", f"{scope}/registrations/{name}")
    policy = wrong.pop("policy", "registration")
    options = {
        "username": f"{scope}/registrations/{name}/{API}&ClientVersion=test",
        "password": sas.make(resource, key, wrong.pop("lifetime", 60), policy),
        **wrong,
    }
    return Device(hub, f"HostName=x;DeviceId={name};SharedAccessKey={key}", **options)


def ask(device: Device, what: str, body: Any = None) -> tuple[str, Any]:
    device.publish(f"$dps/registrations/{what}", json.dumps(body) if body else b"")
    answer = device.receive()
    return answer.topic.removeprefix("$dps/registrations/res/"), json.loads(answer.payload)


def register(device: Device) -> Any:
    """The registration's state, once it is assigned."""
    device.subscribe("$dps/registrations/res/#")
    body = {"registrationId": device.client_id}
    topic, answer = ask(device, "PUT/iotdps-register/?$rid=1", body)
    assert topic == "202/?$rid=1&retry-after=1" and answer["status"] == "assigning"
    operation = answer["operationId"]
    topic, answer = ask(device, f"GET/iotdps-get-operationstatus/?$rid=2&operationId={operation}")
    assert topic == "200/?$rid=2" and answer["status"] == "assigned"
    return answer["registrationState"]


def test_a_group_leads_a_device_to_its_hub(hub: LocalHub) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], "p-1")
    with registration(hub, "p-1", key) as device:
        state = register(device)
    assert state["deviceId"] == "p-1" and state["assignedHub"] == f"localhost:{hub.port}"
    string = f"HostName={state['assignedHub']};DeviceId=p-1;SharedAccessKey={key}"
    with Device(hub, string) as device:
        device.send("provisioned")
    assert hub.wait_events("p-1")[0]["body"] == "provisioned"
    with registration(hub, "p-1", key) as device:  # again, as after a 401
        assert register(device)["deviceId"] == "p-1"


def test_an_individual_enrolment_may_name_the_device(hub: LocalHub) -> None:
    key = sas.new_key()
    body = {
        "registrationId": "p-2",
        "deviceId": "device-2",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}},
    }
    assert hub.service.request("PUT", "/enrollments/p-2", body)["deviceId"] == "device-2"
    with registration(hub, "p-2", key) as device:
        assert register(device)["deviceId"] == "device-2"
    with Device(hub, f"HostName=localhost;DeviceId=device-2;SharedAccessKey={key}"):
        pass
    group_key = sas.derive_key(hub.connection["dps_group_key"], "p-2")
    assert registration(hub, "p-2", group_key).connect() == REFUSED
    hub.service.request("DELETE", "/enrollments/p-2")
    assert registration(hub, "p-2", key).connect() == REFUSED


def test_an_enrolment_gives_a_new_device_its_twin(hub: LocalHub) -> None:
    key = sas.new_key()
    keys = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}}
    given = {"properties": {"desired": {"a": 1}}, "tags": {"room": "7"}}
    body = {"attestation": keys, "initialTwin": given}
    assert hub.service.request("PUT", "/enrollments/p-10", body)["initialTwin"] == given
    with registration(hub, "p-10", key) as device:
        register(device)
    twin = hub.twin("p-10")
    assert twin["properties"]["desired"]["a"] == 1 and twin["tags"] == {"room": "7"}
    hub.set_twin("p-10", {"a": 2})
    with registration(hub, "p-10", key) as device:  # again: what was set since stays
        register(device)
    assert hub.twin("p-10")["properties"]["desired"]["a"] == 2
    with pytest.raises(CommandError, match="initialTwin has to be"):
        hub.service.request("PUT", "/enrollments/p-10", {**body, "initialTwin": [1]})


def test_the_tokens_policy_may_be_left_out(hub: LocalHub) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], "p-9")
    with registration(hub, "p-9", key, policy=None) as device:  # as azure-iot-device does
        register(device)


def test_a_group_of_ones_own(hub: LocalHub) -> None:
    key = sas.new_key()
    keys = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key}}
    body: dict[str, Any] = {"attestation": keys}
    hub.service.request("PUT", "/enrollmentGroups/mine", body)
    derived = sas.derive_key(key, "p-3")
    with registration(hub, "p-3", derived) as device:
        register(device)
    hub.service.request(
        "PUT", "/enrollmentGroups/mine", {**body, "provisioningStatus": "disabled"}
    )
    assert registration(hub, "p-3", derived).connect() == REFUSED


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": "0ne00000000/registrations/p-4"},
        {"resource": "{scope}/registrations/p-5"},
        {"lifetime": -1},
        {"client_id": "p-5"},
        {"username": f"0ne00000000/registrations/p-4/{API}"},
        {"password": "SharedAccessSignature sr=a&sig=b&se=99999999999"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_refused(hub: LocalHub, wrong: dict[str, Any]) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], "p-4")
    wrong = {
        name: value.format(scope=hub.connection["dps_scope"]) if value == str(value) else value
        for name, value in wrong.items()
    }
    assert registration(hub, "p-4", key, **wrong).connect() == REFUSED
    assert registration(hub, "p-4", sas.new_key()).connect() == REFUSED


@pytest.mark.parametrize("name", ["p-9-", "_p:9", "p" * 128])
def test_registration_ids_that_the_service_takes(hub: LocalHub, name: str) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], name)
    with registration(hub, name, key) as device:
        register(device)


def test_a_registration_for_another_is_answered_400(hub: LocalHub) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], "p-6")
    with registration(hub, "p-6", key) as device:
        device.subscribe("$dps/registrations/res/#")
        for body in ({"registrationId": "p-7"}, [1], {}):
            topic, answer = ask(device, "PUT/iotdps-register/?$rid=1", body)
            assert topic == "400/?$rid=1" and answer["message"]
        status = "GET/iotdps-get-operationstatus/?$rid=2&operationId=4.0"
        assert ask(device, status)[0] == "404/?$rid=2"


@pytest.mark.parametrize(
    "topic", ["devices/p-8/messages/events/", "$iothub/twin/GET/?$rid=1", "$dps/x", "$dps"]
)
def test_a_registration_is_no_way_into_the_hub(hub: LocalHub, topic: str) -> None:
    key = sas.derive_key(hub.connection["dps_group_key"], "p-8")
    with registration(hub, "p-8", key) as device:
        assert device.subscribe("$iothub/twin/res/#") == 128
        assert device.subscribe("devices/p-8/messages/devicebound/#") == 128
        device.client.publish(topic, b"", qos=0)
        device.wait_closed()


def test_enrolments_and_the_scope_survive_a_restart(own_hub: LocalHub) -> None:
    hub = own_hub
    before = hub.connection
    hub.service.request("PUT", "/enrollments/p", {})
    enrolment = hub.service.request("GET", "/enrollments/p")
    hub.restart()
    assert hub.connection == before
    assert hub.service.request("GET", "/enrollments/p") == enrolment
    with pytest.raises(CommandError, match="no enrolment"):
        hub.service.request("GET", "/enrollments/q")
