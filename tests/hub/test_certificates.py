"""Devices that prove themselves by an X.509 certificate."""

from __future__ import annotations

import functools
import json
import ssl
import subprocess
from pathlib import Path

import certificates
import pytest
from certificates import Certificate
from conftest import LANES, device_environment
from cryptography import x509
from hubfixture import COMMAND, LocalHub, wait_for
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mqttclient import Device
from vedette_tools.connection import CommandError
from vedette_tools.hub.device_certificates import check_signed
from vedette_tools.hub.errors import Refused

REFUSED = 135
SCRIPT = Path(__file__).with_name("x509_device.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path, hub: LocalHub) -> Certificate:
    """One that the hub trusts."""
    made = certificates.make(folder, "authority", authority=True)
    vedette(hub, "hub", "trust", str(made.certificate))
    return made


def vedette(hub: LocalHub, *words: str) -> str:
    done = subprocess.run([COMMAND, *words], env=hub.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def create(hub: LocalHub, name: str, *options: str) -> str:
    return vedette(hub, "device", "create", name, *options)


def by_thumbprint(hub: LocalHub, name: str, made: Certificate) -> str:
    return create(hub, name, "--certificate", str(made.certificate))


def test_a_device_with_its_own_certificate(hub: LocalHub, folder: Path) -> None:
    made = certificates.make(folder, "cert-1")
    string = by_thumbprint(hub, "cert-1", made)
    assert string == f"HostName=localhost:{hub.port};DeviceId=cert-1;x509=true"
    with Device(hub, string, certificate=made) as device:
        device.send(1)
        assert device.get_twin()["reported"] == {"$version": 1}
    assert hub.wait_events("cert-1")[0]["body"] == 1
    assert Device(hub, string).connect() == REFUSED
    other = certificates.make(folder, "cert-other")
    assert Device(hub, string, certificate=other).connect() == REFUSED
    assert "the certificate is not the one of this device" in hub.log.read_text()


def test_the_secondary_thumbprint_counts_too(hub: LocalHub, folder: Path) -> None:
    made = certificates.make(folder, "cert-2")
    by_thumbprint(hub, "cert-2", made)
    record = hub.service.request("GET", "/devices/cert-2")
    thumbprint = record["authentication"]["x509Thumbprint"]["primaryThumbprint"]
    swapped = {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": thumbprint.lower()}
    body = {"authentication": {"x509Thumbprint": swapped}}
    record = hub.service.request("PUT", "/devices/cert-2", body, {"If-Match": "*"})
    assert record["authentication"]["type"] == "selfSigned"
    with Device(hub, "HostName=x;DeviceId=cert-2;x509=true", certificate=made):
        pass


def test_a_device_by_the_authority_that_signed_it(
    hub: LocalHub, folder: Path, authority: Certificate
) -> None:
    string = create(hub, "cert-3", "--ca-signed")
    made = certificates.make(folder, "cert-3", authority)
    with Device(hub, string, certificate=made) as device:
        device.send("by authority")
    stranger = certificates.make(folder, "stranger", authority=True)
    for wrong in (
        certificates.make(folder, "cert-3", stranger),
        certificates.make(folder, "cert-3"),
        certificates.make(folder, "cert-4", authority),
        certificates.make(folder, "cert-3", authority, days=-1),
        None,
    ):
        assert Device(hub, string, certificate=wrong).connect() == REFUSED


def test_a_module_has_its_own(hub: LocalHub, folder: Path) -> None:
    made = certificates.make(folder, "cert-5")
    string = create(hub, "cert-5", "--module", "m", "--certificate", str(made.certificate))
    with Device(hub, string, certificate=made):
        wait_for(lambda: hub.connected("cert-5", "m"), bool)
    of_device = "HostName=x;DeviceId=cert-5;x509=true"
    assert Device(hub, of_device, certificate=made).connect() == REFUSED


def test_a_key_does_not_help_nor_a_certificate_where_a_key_is_asked(
    hub: LocalHub, folder: Path
) -> None:
    made = certificates.make(folder, "cert-6")
    with_key = hub.create_device("cert-6")
    without_key = "HostName=x;DeviceId=cert-6;x509=true"
    assert Device(hub, without_key, certificate=made).connect() == REFUSED
    by_thumbprint(hub, "cert-7", made)
    key = with_key.partition("SharedAccessKey=")[2]
    string = f"HostName=x;DeviceId=cert-7;SharedAccessKey={key}"
    assert Device(hub, string).connect() == REFUSED
    with Device(hub, with_key, certificate=made):  # what is not asked for does not harm
        pass


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # some bytes make it negative
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), length=st.integers(0, 2000))
@example(place=12, byte=7, length=0)  # a version that there is not
def test_a_certificate_of_any_bytes_is_refused_or_taken(
    folder: Path, place: int, byte: int, length: int
) -> None:
    whole = _signed_by_itself(folder)
    authority = x509.load_der_x509_certificate(whole)
    changed = bytearray(whole)
    changed[place % len(whole)] = byte
    for data in (bytes(changed), whole[:length]):
        try:
            check_signed(data, "fuzz", [authority])
            assert data == whole
        except Refused:
            pass


@functools.cache
def _signed_by_itself(folder: Path) -> bytes:
    return certificates.make(folder, "fuzz", authority=True).der[0].read_bytes()


def attestation(certificates_of: str, made: Certificate) -> dict[str, object]:
    pem = {"primary": {"certificate": made.certificate.read_text()}}
    return {"attestation": {"type": "x509", "x509": {certificates_of: pem}}}


def registration(hub: LocalHub, name: str, made: Certificate) -> Device:
    user = f"{hub.connection['dps_scope']}/registrations/{name}/api-version=2019-03-31"
    return Device(hub, f"HostName=x;DeviceId={name};x509=true", username=user, certificate=made)


def register(device: Device) -> str:
    """The id of the device that was assigned."""
    device.subscribe("$dps/registrations/res/#")
    body = json.dumps({"registrationId": device.client_id})
    device.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body)
    operation = json.loads(device.receive().payload)["operationId"]
    status = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2"
    device.publish(f"{status}&operationId={operation}")
    answer = json.loads(device.receive().payload)
    return str(answer["registrationState"]["deviceId"])


def test_provisioning_by_a_certificate_of_its_own(hub: LocalHub, folder: Path) -> None:
    made = certificates.make(folder, "cert-10")
    body = {**attestation("clientCertificates", made), "deviceId": "cert-10-device"}
    shown = hub.service.request("PUT", "/enrollments/cert-10", body)
    assert shown["attestation"] == body["attestation"]
    with registration(hub, "cert-10", made) as device:
        assert register(device) == "cert-10-device"
    string = "HostName=x;DeviceId=cert-10-device;x509=true"
    with Device(hub, string, certificate=made) as device:
        device.send("provisioned")
    other = certificates.make(folder, "cert-10")
    assert registration(hub, "cert-10", other).connect() == REFUSED


def test_provisioning_by_the_authority_of_a_group(hub: LocalHub, folder: Path) -> None:
    authority = certificates.make(folder, "group", authority=True)
    body = attestation("signingCertificates", authority)
    hub.service.request("PUT", "/enrollmentGroups/certified", body)
    made = certificates.make(folder, "cert-11", authority)
    with registration(hub, "cert-11", made) as device:
        assert register(device) == "cert-11"
    with Device(hub, "HostName=x;DeviceId=cert-11;x509=true", certificate=made):
        pass
    assert registration(hub, "cert-12", made).connect() == REFUSED
    for wrong in (certificates.make(folder, "cert-11"), authority):
        assert registration(hub, "cert-11", wrong).connect() == REFUSED
    hub.service.request("DELETE", "/enrollmentGroups/certified")
    assert registration(hub, "cert-11", made).connect() == REFUSED


@pytest.mark.parametrize(
    "attestation",
    [
        {"type": "tpm"},
        {"type": "x509"},
        {"type": "x509", "x509": {"clientCertificates": {"primary": {}}}},
        {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "AAAA"}}}},
        {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": "x"}}}},
    ],
)
def test_an_attestation_that_is_none(hub: LocalHub, attestation: dict[str, object]) -> None:
    with pytest.raises(CommandError, match="attestation|primary is missing|has to be X.509"):
        hub.service.request("PUT", "/enrollments/cert-13", {"attestation": attestation})


@pytest.mark.parametrize("lane", ["64", "32"])
def test_lib_iothub_connects_with_a_certificate(
    hub: LocalHub, folder: Path, authority: Certificate, lane: str
) -> None:
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    ca = folder / "hub.der"
    ca.write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    name = f"cert-8-{lane}"
    create(hub, name, "--ca-signed")
    made = certificates.make(folder, name, authority)
    done = subprocess.run(
        [LANES[lane], SCRIPT, hub.host, str(hub.port), name, *made.der, ca],
        env=device_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.wait_events(name)[0]["body"] == "from MicroPython"


def test_a_trusted_authority_survives_a_restart_and_can_be_deleted(
    own_hub: LocalHub, folder: Path
) -> None:
    hub = own_hub
    authority = certificates.make(folder, "own-authority", authority=True)
    vedette(hub, "hub", "trust", str(authority.certificate))
    string = create(hub, "x", "--ca-signed")
    made = certificates.make(folder, "x", authority)
    hub.restart()
    assert hub.service.request("GET", "/vedette/authorities") == ["own-authority"]
    with Device(hub, string, certificate=made):
        pass
    hub.service.request("DELETE", "/vedette/authorities/own-authority")
    assert Device(hub, string, certificate=made).connect() == REFUSED


@pytest.mark.parametrize(
    ("authentication", "error"),
    [
        ({"type": "tpm"}, "'tpm' is not there"),
        ({"type": "selfSigned"}, "primaryThumbprint has to be 40"),
        ({"x509Thumbprint": {"primaryThumbprint": "AB"}}, "primaryThumbprint has to be 40"),
        ({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": 7}}, "has to be 40"),
    ],
)
def test_an_authentication_that_is_none(
    hub: LocalHub, authentication: dict[str, object], error: str
) -> None:
    with pytest.raises(CommandError, match=error):
        hub.service.request("PUT", "/devices/cert-9", {"authentication": authentication})


def test_what_cannot_be_trusted(hub: LocalHub, folder: Path) -> None:
    leaf = certificates.make(folder, "leaf")
    text = folder / "text.pem"
    text.write_text("no certificate")
    for path, says in (
        (leaf.certificate, "not that of an authority"),
        (text, "no certificate of an authority"),
        (folder / "missing.pem", "No such file"),
    ):
        done = subprocess.run(
            [COMMAND, "hub", "trust", str(path)], env=hub.env, capture_output=True, text=True
        )
        assert done.returncode == 1 and says in done.stderr
