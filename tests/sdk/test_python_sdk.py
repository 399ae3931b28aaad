"""Microsoft's Python SDKs against the local hub: `make test-sdk`.

They run in an environment of their own, where nothing of the hub is but its test fixture.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import certificates
import pytest
from hubfixture import LocalHub, wait_for
from vedette_tools.hub import sas

pytest.importorskip("azure.iot.device")

from azure.iot.device import (  # noqa: E402
    X509,
    IoTHubDeviceClient,
    IoTHubModuleClient,
    Message,
    MethodResponse,
    ProvisioningDeviceClient,
)
from azure.iot.device.aio import IoTHubDeviceClient as AsyncDeviceClient  # noqa: E402
from azure.iot.device.exceptions import CredentialError  # noqa: E402
from azure.iot.hub import IoTHubRegistryManager  # noqa: E402
from azure.iot.hub.models import (  # noqa: E402
    CloudToDeviceMethod,
    ExportImportDevice,
    QuerySpecification,
    Twin,
    TwinProperties,
)

pytestmark = pytest.mark.slow

WAIT_S = 15


@pytest.fixture
def registry(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> IoTHubRegistryManager:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.ca))
    return IoTHubRegistryManager.from_connection_string(
        hub.connection["service_connection_string"]
    )


def connected(hub: LocalHub, name: str, module: str | None = None, **options: Any) -> Any:
    kind = IoTHubModuleClient if module else IoTHubDeviceClient
    client = kind.create_from_connection_string(
        hub.create_device(name, module), server_verification_cert=hub.ca.read_text(), **options
    )
    client.connect()
    return client


# --- the service side ---


def test_a_device_in_the_registry(registry: IoTHubRegistryManager) -> None:
    first, second = sas.new_key(), sas.new_key()
    device = registry.create_device_with_sas("r-1", first, second, "enabled")
    assert device.authentication.symmetric_key.primary_key == first
    assert registry.get_device("r-1").connection_state == "Disconnected"
    assert "r-1" in [each.device_id for each in registry.get_devices()]
    changed = registry.update_device_with_sas("r-1", device.etag, first, second, "disabled")
    assert changed.status == "disabled" and changed.etag != device.etag
    with pytest.raises(Exception, match="Precondition"):
        registry.update_device_with_sas("r-1", device.etag, first, second, "enabled")
    with pytest.raises(Exception, match="Conflict"):
        registry.create_device_with_sas("r-1", first, second, "enabled")
    registry.delete_device("r-1")
    with pytest.raises(Exception, match="Not Found"):
        registry.get_device("r-1")


def test_modules_in_the_registry(registry: IoTHubRegistryManager) -> None:
    key = sas.new_key()
    registry.create_device_with_sas("r-2", key, key, "enabled")
    module = registry.create_module_with_sas("r-2", "m", "somebody", key, key)
    assert (module.module_id, module.managed_by) == ("m", "somebody")
    assert [each.module_id for each in registry.get_modules("r-2")] == ["m"]
    twin = registry.get_module_twin("r-2", "m")
    patch = Twin(properties=TwinProperties(desired={"a": 1}))
    updated = registry.update_module_twin("r-2", "m", patch, twin.etag)
    assert updated.properties.desired["a"] == 1 and updated.module_id == "m"
    registry.delete_module("r-2", "m")
    registry.delete_device("r-2")


def test_a_twin_by_its_etag(hub: LocalHub, registry: IoTHubRegistryManager) -> None:
    hub.create_device("r-3")
    twin = registry.get_twin("r-3")
    patch = Twin(tags={"room": 4}, properties=TwinProperties(desired={"a": {"b": 1}}))
    updated = registry.update_twin("r-3", patch, twin.etag)
    assert updated.tags == {"room": 4} and updated.properties.desired["a"] == {"b": 1}
    with pytest.raises(Exception, match="Precondition"):
        registry.update_twin("r-3", patch, twin.etag)
    whole = Twin(properties=TwinProperties(desired={"c": 2}))
    replaced = registry.replace_twin("r-3", whole, "*").properties.desired
    assert replaced["c"] == 2 and "a" not in replaced


# --- devices ---


@pytest.mark.parametrize("module", [None, "m"])
def test_telemetry_with_its_properties(hub: LocalHub, module: str | None) -> None:
    name = f"s-1-{module}"
    client = connected(hub, name, module)
    message = Message('{"x": 1}', message_id="m 1", content_encoding="utf-8")
    message.content_type = "application/json"
    message.custom_properties["a b"] = "c&d=ü"
    client.send_message(message)
    client.shutdown()
    (event,) = hub.wait_events(name)
    assert event["moduleId"] == module and event["body"] == {"x": 1}
    assert event["properties"] == {"a b": "c&d=ü"}
    system = event["systemProperties"]
    assert system["$.mid"] == "m 1" and system["$.ct"] == "application/json"
    assert system["$.ce"] == "utf-8"


@pytest.mark.parametrize("module", [None, "m"])
def test_twins_both_ways(
    hub: LocalHub, registry: IoTHubRegistryManager, module: str | None
) -> None:
    name = f"s-2-{module}"
    client = connected(hub, name, module)
    patches: list[Any] = []
    client.on_twin_desired_properties_patch_received = patches.append
    client.patch_twin_reported_properties({"r": {"s": 1}})
    assert client.get_twin()["reported"] == {"r": {"s": 1}, "$version": 2}
    patch = Twin(properties=TwinProperties(desired={"d": None, "e": 2}))
    if module:
        registry.update_module_twin(name, module, patch, "*")
    else:
        registry.update_twin(name, patch, "*")
    wait_for(lambda: patches, bool, WAIT_S)
    assert patches == [{"d": None, "e": 2, "$version": 2}]
    assert client.get_twin()["desired"] == {"e": 2, "$version": 2}
    client.shutdown()


def test_methods(hub: LocalHub, registry: IoTHubRegistryManager) -> None:
    client = connected(hub, "s-3")

    def answer(request: Any) -> None:
        response = MethodResponse.create_from_method_request(
            request, 207, {"name": request.name, "got": request.payload}
        )
        client.send_method_response(response)

    client.on_method_request_received = answer
    call = CloudToDeviceMethod(
        method_name="collectNow", payload={"a": [1]}, connect_timeout_in_seconds=10
    )
    result = registry.invoke_device_method("s-3", call)
    assert result.status == 207 and result.payload == {"name": "collectNow", "got": {"a": [1]}}
    client.shutdown()
    with pytest.raises(Exception, match="Not Found"):
        registry.invoke_device_method("s-3", CloudToDeviceMethod(method_name="x"))


def test_cloud_to_device_messages(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certifi.where", lambda: str(hub.ca))  # AMQP's only way to a CA
    registry = IoTHubRegistryManager.from_connection_string(
        hub.connection["service_connection_string"]
    )
    string = hub.create_device("s-4")
    registry.send_c2d_message("s-4", "early", {"k": "v ü", "messageId": "m1"})
    client = IoTHubDeviceClient.create_from_connection_string(
        string, server_verification_cert=hub.ca.read_text()
    )
    received: list[Any] = []
    client.connect()
    client.on_message_received = received.append
    wait_for(lambda: received, bool, WAIT_S)
    registry.send_c2d_message("s-4", "late", {"contentType": "text/plain"})
    wait_for(lambda: received, lambda found: len(found) == 2, WAIT_S)
    assert [message.data for message in received] == [b"early", b"late"]
    assert received[0].custom_properties == {"k": "v ü"} and received[0].message_id == "m1"
    assert received[1].content_type == "text/plain"
    client.shutdown()
    with pytest.raises(Exception, match="send failure"):
        registry.send_c2d_message("s-none", "x")


def test_provisioning_by_group_and_by_individual_enrolment(hub: LocalHub) -> None:
    assert hub.connection["dps_host"] == "127.0.0.2" != hub.host
    group_key = sas.derive_key(hub.connection["dps_group_key"], "s-5")
    enrolment = hub.service.request("PUT", "/enrollments/s-6", {"deviceId": "s-6-device"})
    own_key = enrolment["attestation"]["symmetricKey"]["primaryKey"]
    for registration, key, device in (("s-5", group_key, "s-5"), ("s-6", own_key, "s-6-device")):
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            provisioning_host=hub.connection["dps_host"],
            registration_id=registration,
            id_scope=hub.connection["dps_scope"],
            symmetric_key=key,
            server_verification_cert=hub.ca.read_text(),
        )
        result = client.register()
        assert result.status == "assigned"
        state = result.registration_state
        assert (state.device_id, state.assigned_hub) == (device, hub.host)
        connection = IoTHubDeviceClient.create_from_symmetric_key(
            key, state.assigned_hub, state.device_id, server_verification_cert=hub.ca.read_text()
        )
        connection.connect()
        connection.send_message("provisioned")
        connection.shutdown()
        assert hub.wait_events(device)[0]["body"] == "provisioned"


@pytest.mark.parametrize("signed", [False, True])
def test_a_device_with_a_certificate(
    hub: LocalHub, registry: IoTHubRegistryManager, tmp_path: Path, signed: bool
) -> None:
    name = f"s-10-{signed}"
    if signed:
        authority = certificates.make(tmp_path, "authority", authority=True)
        body = {"certificate": authority.certificate.read_text()}
        hub.service.request("PUT", "/vedette/authorities/sdk", body)
        registry.create_device_with_certificate_authority(name, "enabled")
        made = certificates.make(tmp_path, name, authority)
    else:
        made = certificates.make(tmp_path, name)
        thumbprint = hashlib.sha1(made.der[0].read_bytes()).hexdigest()
        created = registry.create_device_with_x509(name, thumbprint, None, "enabled")
        assert created.authentication.type == "selfSigned"
    client = IoTHubDeviceClient.create_from_x509_certificate(
        X509(cert_file=str(made.certificate), key_file=str(made.key)),
        hub.host,
        name,
        server_verification_cert=hub.ca.read_text(),
    )
    client.connect()
    client.send_message("by certificate")
    client.shutdown()
    assert hub.wait_events(name)[0]["body"] == "by certificate"


def test_statistics_queries_and_many_devices_at_once(registry: IoTHubRegistryManager) -> None:
    before = registry.get_device_registry_statistics().total_device_count
    devices = [
        ExportImportDevice(id=f"s-11-{n}", import_mode="create", tags={"shelf": 11})
        for n in range(3)
    ]
    assert registry.bulk_create_or_update_devices(devices).is_successful
    assert registry.get_device_registry_statistics().total_device_count == before + 3
    query = QuerySpecification(query="SELECT * FROM devices WHERE tags.shelf = 11")
    page = registry.query_iot_hub(query, None, 2)
    assert [twin.device_id for twin in page.items] == ["s-11-0", "s-11-1"]
    page = registry.query_iot_hub(query, page.continuation_token, 2)
    assert [twin.device_id for twin in page.items] == ["s-11-2"]
    assert page.continuation_token is None
    refused = registry.bulk_create_or_update_devices(devices[:1])
    assert not refused.is_successful and refused.errors[0].device_id == "s-11-0"
    assert registry.get_service_statistics().connected_device_count >= 0


@pytest.mark.parametrize("group", [False, True])
def test_provisioning_by_certificate(hub: LocalHub, tmp_path: Path, group: bool) -> None:
    name = f"s-12-{group}"
    signer = certificates.make(tmp_path, "signer", authority=True) if group else None
    made = certificates.make(tmp_path, name, signer)
    if signer:
        path, place = "/enrollmentGroups/s-12", "signingCertificates"
    else:
        path, place = f"/enrollments/{name}", "clientCertificates"
    pem = {"primary": {"certificate": (signer or made).certificate.read_text()}}
    hub.service.request("PUT", path, {"attestation": {"type": "x509", "x509": {place: pem}}})
    proof = X509(cert_file=str(made.certificate), key_file=str(made.key))
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=hub.connection["dps_host"],
        registration_id=name,
        id_scope=hub.connection["dps_scope"],
        x509=proof,
        server_verification_cert=hub.ca.read_text(),
    )
    state = client.register().registration_state
    assert (state.device_id, state.assigned_hub) == (name, hub.host)
    device = IoTHubDeviceClient.create_from_x509_certificate(
        proof, state.assigned_hub, name, server_verification_cert=hub.ca.read_text()
    )
    device.connect()
    device.send_message("by certificate")
    device.shutdown()
    assert hub.wait_events(name)[0]["body"] == "by certificate"


def test_a_wrong_key_is_a_credential_error(hub: LocalHub) -> None:
    hub.create_device("s-7")
    client = IoTHubDeviceClient.create_from_symmetric_key(
        sas.new_key(), hub.host, "s-7", server_verification_cert=hub.ca.read_text()
    )
    with pytest.raises(CredentialError):
        client.connect()
    client.shutdown()


def test_the_connection_comes_back_after_a_kick(hub: LocalHub) -> None:
    client = connected(hub, "s-8")
    patches: list[Any] = []
    client.on_twin_desired_properties_patch_received = patches.append
    client.get_twin()
    hub.kick("s-8")
    wait_for(hub.log.read_text, lambda log: "s-8 disconnected" in log, WAIT_S)
    wait_for(lambda: hub.connected("s-8"), bool, 30)
    client.send_message(json.dumps({"back": True}))
    hub.set_twin("s-8", {"a": 1})
    wait_for(lambda: patches, lambda found: {"a": 1, "$version": 2} in found, WAIT_S)
    client.shutdown()
    assert hub.wait_events("s-8")[0]["body"] == {"back": True}


def test_many_messages_in_flight(hub: LocalHub) -> None:
    async def send() -> None:
        client = AsyncDeviceClient.create_from_connection_string(
            hub.create_device("s-9"), server_verification_cert=hub.ca.read_text()
        )
        await client.connect()
        await asyncio.gather(*(client.send_message(str(number)) for number in range(200)))
        await client.shutdown()

    asyncio.run(send())
    events = hub.wait_events("s-9", 200)
    assert sorted(event["body"] for event in events) == list(range(200))
