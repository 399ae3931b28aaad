"""The client on the real MicroPython against the local hub: tokens, telemetry, twins, outages."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
import ssl
import time
from pathlib import Path
from typing import Any

import certificates
import pytest
from device import KEY, Device, lane, lanes
from hubfixture import LocalHub

__all__ = ["lane"]

GAP_S = 2  # for a reconnect on a busy machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the hub's root certificate goes, as DER."""
    return tmp_path / "root.der"


def device(lane: str, hub: LocalHub, root: Path, text: str, **options: Any) -> Device:
    root.write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    return Device(lane, text, root, **options)


def test_telemetry_with_properties(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"telemetry-{lane}"
    properties = {
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "$.mid": "m+1 #/",
        "colour": "grün & blau=?",
        "empty": "",
    }
    with device(lane, hub, root, hub.create_device(name)) as probe:
        number = probe.do("send", body='{"a":1}', properties=properties)
        probe.expect("sent", number=number)
        number = probe.do("stream", size=12345, properties={"n": "2"})
        probe.expect("sent", number=number)
        long = {"long": "x" * 1000}  # longer than what is collected before it is written
        probe.outcome(probe.do("send", body="3", properties=long))
    first, second, third = hub.wait_events(name, 3)
    assert first["body"] == {"a": 1}
    assert first["properties"] == {"colour": "grün & blau=?", "empty": ""}
    system = first["systemProperties"]
    assert (system["$.ct"], system["$.ce"], system["$.mid"]) == (
        "application/json",
        "utf-8",
        "m+1 #/",
    )
    assert second["body"] == "s" * 12345 and second["properties"] == {"n": "2"}
    assert third["body"] == 3 and third["properties"] == long


def test_twin_both_ways(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"twin-{lane}"
    text = hub.create_device(name)
    version = hub.set_twin(name, {"interval": 30, "deep": {"a": [1, "ü"]}})["properties"][
        "desired"
    ]
    with device(lane, hub, root, text) as probe:
        told = probe.expect("desired", full=True)
        assert told["desired"] == {"interval": 30, "deep": {"a": [1, "ü"]}}
        assert told["version"] == version["$version"]
        hub.set_twin(name, {"interval": None, "other": 1})
        told = probe.expect("desired", full=False)
        assert told["desired"] == {"interval": None, "other": 1}
        assert told["version"] == version["$version"] + 1
        versions = []
        for patch in ({"state": "ok", "n": 1}, {"n": None, "m": "ü"}):
            number = probe.do("report", patch=patch)
            versions.append(probe.expect("reported", number=number)["result"])
        assert versions[1] == versions[0] + 1
        reported = hub.twin(name)["properties"]["reported"]
        assert {k: v for k, v in reported.items() if k[0] != "$"} == {"state": "ok", "m": "ü"}
        number = probe.do("report", patch={"bad key": 1})
        probe.expect("error", number=number, code="rejected")


def test_a_module(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"module-{lane}"
    text = hub.create_device(name, "security")
    hub.set_twin(name, {"of": "module"}, "security")
    with device(lane, hub, root, text) as probe:
        assert probe.expect("desired", full=True)["desired"] == {"of": "module"}
        number = probe.do("send", body="hello")
        probe.expect("sent", number=number)
        number = probe.do("report", patch={"by": "module"})
        probe.expect("reported", number=number)
    [event] = hub.wait_events(name)
    assert event["moduleId"] == "security"
    assert hub.twin(name, "security")["properties"]["reported"]["by"] == "module"


def test_a_wrong_key(lane: str, hub: LocalHub, root: Path) -> None:
    hub.create_device("wrong-key")
    text = f"HostName=localhost:{hub.port};DeviceId=wrong-key;SharedAccessKey=c2VjcmV0"
    with device(lane, hub, root, text) as probe:
        number = probe.do("wait", timeout=1)
        probe.expect("error", number=number, code="refused")


def test_a_kick_is_followed_by_a_reconnect(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"kick-{lane}"
    with device(lane, hub, root, hub.create_device(name)) as probe:
        probe.expect("desired", full=True)
        hub.kick(name)
        probe.expect("connection", up=False, code="closed")
        probe.expect("desired", full=True)


def test_the_hub_is_restarted_under_load(own_hub: LocalHub, root: Path) -> None:
    with contextlib.ExitStack() as stack:
        probes = {}
        for lane in lanes():
            for clean in (True, False):
                name = f"restart-{lane}-{clean}"
                text = own_hub.create_device(name)
                started = device(lane, own_hub, root, text, clean_session=clean)
                probes[name] = stack.enter_context(started)
        for probe in probes.values():
            probe.expect("desired", full=True)
        numbers = []
        for i in range(60):
            numbers += [(probe, probe.do("send", body=str(i))) for probe in probes.values()]
            if i == 20:
                own_hub.kill9("broker")
            if i == 40:
                own_hub.restart()
        for probe, number in numbers:
            probe.outcome(number, timeout=40)
        for name, probe in probes.items():
            own_hub.set_twin(name, {"after": True})
            probe.expect("desired", desired={"after": True})
            events = own_hub.wait_events(name, lambda found: len(found) >= 60)
            assert {event["body"] for event in events} == set(range(60))


def renew(hub: LocalHub, root: Path, lifetime: int, seconds: int) -> None:
    """Sends without a break while tokens of `lifetime` seconds run out one after another."""
    with contextlib.ExitStack() as stack:
        probes = {}
        for lane in lanes():
            name = f"renew-{lane}-{lifetime}"
            text = hub.create_device(name)
            started = device(lane, hub, root, text, token_lifetime=lifetime, speed=1)
            probes[name] = stack.enter_context(started)
        for probe in probes.values():
            probe.expect("desired", full=True)
        end = time.monotonic() + seconds
        count = 0
        numbers = []
        while time.monotonic() < end:
            for probe in probes.values():
                numbers.append((probe, probe.do("send", body=str(count))))
                stream = probe.do("stream", size=5000, properties={"n": str(count + 1)})
                numbers.append((probe, stream))
            count += 2
            time.sleep(0.05)
        for probe, number in numbers:
            probe.outcome(number)
        for probe in probes.values():
            assert not [t for t in probe.told if t["event"] == "connection" and not t["up"]]
            assert not [t for t in probe.told if t["event"] == "error"]
            probe.do("stats")
            stats = probe.expect("stats")
            assert stats["failures"] == 0 and stats["retried"] == 0
            assert seconds // lifetime <= stats["renewals"] <= 2 * seconds // lifetime
    for name in probes:
        events = hub.wait_events(name, lambda found: len(found) >= count)
        marks = [e["properties"].get("n") or str(e["body"]) for e in events]
        assert sorted(map(int, marks)) == list(range(count))
        times = [datetime.datetime.fromisoformat(e["enqueuedTimeUtc"]) for e in events]
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
        assert max(gaps) < GAP_S, f"nothing came for {max(gaps)} s"


def test_tokens_are_renewed_without_loss(hub: LocalHub, root: Path) -> None:
    renew(hub, root, lifetime=6, seconds=7)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_tokens_of_20_seconds_for_5_minutes(hub: LocalHub, root: Path) -> None:
    renew(hub, root, lifetime=20, seconds=300)


def provisioned(lane: str, hub: LocalHub, root: Path, name: str, **secret: Any) -> Device:
    connection = hub.connection
    host = f"{connection['dps_host']}:{connection['dps_port']}"
    registration = {"scope": connection["dps_scope"], "registration_id": name, "host": host}
    return device(lane, hub, root, "", provisioning={**registration, **secret})


def test_provisioned_by_a_group_and_again_when_the_hub_does_not_know_it(
    lane: str, hub: LocalHub, root: Path
) -> None:
    name = f"group-{lane}"
    secret = {
        "group_key": hub.connection["dps_group_key"],
        "store": str(root.with_name("assigned.json")),
    }
    with provisioned(lane, hub, root, name, **secret) as probe:
        probe.outcome(probe.do("send", body="first"))
        hub.delete_device(name)
        probe.expect("connection", up=False, code="refused")
        probe.outcome(probe.do("send", body="second"))
    hub.delete_device(name)
    with provisioned(lane, hub, root, name, **secret) as probe:
        probe.expect("connection", up=False, code="refused")  # by the hub that is remembered
        probe.outcome(probe.do("send", body="third"))
    assert hub.wait_events(name)[-1]["body"] == "third"


def test_provisioned_by_its_own_key(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"individual-{lane}"
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}
    body = {"registrationId": name, "deviceId": name + "-named", "attestation": attestation}
    hub.service.request("PUT", f"/enrollments/{name}", body)
    with provisioned(lane, hub, root, name, key=KEY) as probe:
        probe.outcome(probe.do("send", body="x"))
    assert len(hub.wait_events(name + "-named")) == 1
    with provisioned(lane, hub, root, name, key="d3Jvbmc=") as probe:
        number = probe.do("wait", timeout=5)
        probe.expect("error", number=number, code="refused")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[certificates.Certificate]:
    """Two certificates that have nothing to do with each other."""
    folder = tmp_path_factory.mktemp("certificates")
    return [certificates.make(folder, "device") for _ in range(2)]


@pytest.mark.parametrize("kind", ["individual", "group"])
def test_provisioned_by_a_certificate(
    lane: str, hub: LocalHub, root: Path, made: list[certificates.Certificate], kind: str
) -> None:
    folder, name = root.parent, f"certified-{lane}-{kind}"
    signer = certificates.make(folder, "group", authority=True) if kind == "group" else None
    own = certificates.make(folder, name, signer)
    if signer:
        path, place = f"/enrollmentGroups/{name}", "signingCertificates"
    else:
        path, place = f"/enrollments/{name}", "clientCertificates"
    pem = {"primary": {"certificate": (signer or own).certificate.read_text()}}
    attestation = {"type": "x509", "x509": {place: pem}}
    hub.service.request("PUT", path, {"attestation": attestation})
    shown = [str(file) for file in own.der]
    with provisioned(lane, hub, root, name, certificate=shown) as probe:
        probe.outcome(probe.do("send", body="certified"))
    assert hub.wait_events(name)[0]["body"] == "certified"
    other = [str(file) for file in made[0].der]
    with provisioned(lane, hub, root, name, certificate=other) as probe:
        number = probe.do("wait", timeout=5)
        probe.expect("error", number=number, code="refused")


def test_a_certificate(
    lane: str, hub: LocalHub, root: Path, made: list[certificates.Certificate]
) -> None:
    name = f"certificate-{lane}"
    thumbprint = hashlib.sha1(made[0].der[0].read_bytes()).hexdigest()
    authentication = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}}
    hub.service.request("PUT", f"/devices/{name}", {"authentication": authentication})
    text = f"HostName=localhost:{hub.port};DeviceId={name};x509=true"
    shown, other = [[str(path) for path in each.der] for each in made]
    with device(lane, hub, root, text, certificate=shown) as probe:
        probe.outcome(probe.do("send", body="x"))
    assert len(hub.wait_events(name)) == 1
    with device(lane, hub, root, text, certificate=other) as probe:
        number = probe.do("wait", timeout=5)
        probe.expect("error", number=number, code="refused")
