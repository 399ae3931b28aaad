"""Who the device is: X.509 certificates, and provisioning with its second thoughts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device import KEY, Device, lane
from fakehub import FakeHub
from pki import Authority

__all__ = ["lane"]

GROUP_KEY = base64.b64encode(b"group key of the tests, 32 bytes").decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.issue("server")
    authority.issue("device", "dev-x")
    return authority


@pytest.fixture
def hub(authority: Authority) -> Iterator[FakeHub]:
    with FakeHub(authority.folder / "server.pem") as hub:
        yield hub


@pytest.fixture
def service(authority: Authority, hub: FakeHub) -> Iterator[FakeHub]:
    """A provisioning service that assigns `hub`."""
    with FakeHub(authority.folder / "server.pem") as service:
        service.assignment = assignment(hub)
        yield service


def assignment(hub: FakeHub, device: str = "dev-1") -> dict[str, Any]:
    state = {"assignedHub": f"localhost:{hub.port}", "deviceId": device}
    return {"operationId": "op-1", "status": "assigned", "registrationState": state}


def provisioned(
    lane: str, service: FakeHub, authority: Authority, speed: int = 5, **more: Any
) -> Device:
    registration = {
        "scope": "0ne000SCOPE",
        "registration_id": "dev-1",
        "host": f"localhost:{service.port}",
        **more,
    }
    return Device(lane, None, authority.der, speed=speed, provisioning=registration)


def strings(connect: bytes) -> list[str]:
    """The texts of a CONNECT packet's body: client id, user name, password."""
    found, rest = [], connect[10:]
    while rest:
        size = int.from_bytes(rest[:2], "big")
        found.append(rest[2 : 2 + size].decode())
        rest = rest[2 + size :]
    return found


def signed_with(password: str, key: bytes) -> bool:
    fields = dict(urllib.parse.parse_qsl(password.partition(" ")[2]))
    text = f"{urllib.parse.quote(fields['sr'], safe='')}\n{fields['se']}"
    signature = hmac.digest(key, text.encode(), hashlib.sha256)
    return base64.b64decode(fields["sig"]) == signature


def test_a_client_certificate(lane: str, authority: Authority) -> None:
    shown = [str(authority.folder / name) for name in ("device.der", "device.key.der")]
    with FakeHub(authority.folder / "server.pem", authority.pem) as hub:
        text = f"HostName=localhost:{hub.port};DeviceId=dev-x;x509=true"
        with Device(lane, text, authority.der, certificate=shown) as p:
            p.expect("desired", full=True)
            p.outcome(p.do("send", body="x"))
        assert hub.names == ["dev-x"]
        assert strings(hub.connects[0]) == ["dev-x", "localhost/dev-x/?api-version=2021-04-12"]


def test_a_client_certificate_that_is_missing(lane: str, authority: Authority) -> None:
    shown = [str(authority.folder / name) for name in ("none.der", "device.key.der")]
    text = "HostName=localhost:1;DeviceId=dev-x;x509=true"
    with Device(lane, text, authority.der, certificate=shown) as probe:
        error = probe.expect("error", number=probe.do("wait", timeout=1))
        assert error["code"] == "credentials" and "none.der" in error["text"]


def test_a_device_with_its_own_key(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority
) -> None:
    service.polls = 2
    with provisioned(lane, service, authority, key=KEY) as probe:
        probe.expect("desired", full=True)
    client_id, user, password = strings(service.connects[0])
    assert client_id == "dev-1"
    assert user == "0ne000SCOPE/registrations/dev-1/api-version=2019-03-31"
    assert "sr=0ne000SCOPE%2Fregistrations%2Fdev-1&" in password
    assert password.endswith("&skn=registration")
    assert signed_with(password, base64.b64decode(KEY))
    first, second, third = service.published
    assert first[1] == "$dps/registrations/PUT/iotdps-register/?$rid=2"
    assert json.loads(first[2]) == {"registrationId": "dev-1"}
    assert second[1] == (
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=3&operationId=op-1"
    )
    assert third[1].endswith("?$rid=4&operationId=op-1")
    client_id, _, password = strings(hub.connects[0])
    assert client_id == "dev-1" and signed_with(password, base64.b64decode(KEY))


def test_a_device_of_a_group(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority
) -> None:
    with provisioned(lane, service, authority, group_key=GROUP_KEY) as probe:
        probe.expect("desired", full=True)
    derived = hmac.digest(base64.b64decode(GROUP_KEY), b"dev-1", hashlib.sha256)
    assert signed_with(strings(service.connects[0])[2], derived)
    assert signed_with(strings(hub.connects[0])[2], derived)


def test_provisioning_with_a_certificate(lane: str, hub: FakeHub, authority: Authority) -> None:
    shown = [str(authority.folder / name) for name in ("device.der", "device.key.der")]
    with FakeHub(authority.folder / "server.pem", authority.pem) as service:
        service.assignment = assignment(hub)
        with provisioned(lane, service, authority, certificate=shown) as probe:
            probe.expect("desired", full=True)
        assert service.names == ["dev-x"]
        assert len(strings(service.connects[0])) == 2


def test_the_assigned_hub_is_remembered(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority, tmp_path: Path
) -> None:
    store = tmp_path / "assigned.json"
    for _ in range(2):
        with provisioned(lane, service, authority, key=KEY, store=str(store)) as probe:
            probe.expect("desired", full=True)
    assert len(service.connects) == 1 and len(hub.connects) == 2
    assert KEY not in store.read_text()
    store.write_text('{"hub": ')  # torn by a reset
    with provisioned(lane, service, authority, key=KEY, store=str(store)) as probe:
        probe.expect("desired", full=True)
    assert len(service.connects) == 2


def test_a_refusal_leads_to_another_hub(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority, tmp_path: Path
) -> None:
    store = tmp_path / "assigned.json"
    with provisioned(lane, service, authority, key=KEY, store=str(store)) as probe:
        probe.expect("desired", full=True)
        with FakeHub(authority.folder / "server.pem") as other:
            service.assignment = assignment(other, "dev-2")
            hub.refuse = 5
            number = probe.do("send", body="kept")
            probe.outcome(number)
            hub.drop()
            probe.expect("connection", up=False, code="refused")
            number = probe.do("send", body="moved")
            probe.outcome(number)
            assert strings(other.connects[0])[0] == "dev-2"
            assert [t for _, t, _ in other.published if "events" in t] == [
                "devices/dev-2/messages/events/"
            ]


def test_ten_failures_lead_to_another_hub(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority
) -> None:
    with (
        provisioned(lane, service, authority, speed=60, key=KEY) as probe,
        FakeHub(authority.folder / "server.pem") as other,
    ):
        probe.expect("desired", full=True)
        before = len(probe.told)
        service.assignment = assignment(other)
        hub.close()
        probe.expect("desired", full=True, timeout=60)
        failures = [told["code"] for told in probe.told[before:] if told.get("up") is False]
        assert failures[:10] == ["closed"] + 9 * ["unreachable"]
        assert other.connects


def test_a_service_that_is_away_does_not_stop_a_known_device(
    lane: str, hub: FakeHub, service: FakeHub, authority: Authority, tmp_path: Path
) -> None:
    store = tmp_path / "assigned.json"
    with provisioned(lane, service, authority, key=KEY, store=str(store)) as probe:
        probe.expect("desired", full=True)
        service.close()
        hub.refuse = 5
        hub.drop()
        probe.expect("connection", code="refused")
        probe.expect("connection", code="unreachable")
        hub.refuse = 0
        probe.expect("connection", up=True)


def test_no_hub_is_assigned(lane: str, service: FakeHub, authority: Authority) -> None:
    service.assignment = {"operationId": "op-1", "status": "disabled"}
    with provisioned(lane, service, authority, key=KEY) as probe:
        error = probe.expect("error", number=probe.do("wait", timeout=1.5))
        assert error["code"] == "refused" and "disabled" in error["text"]
    service.assignment_status = 401
    service.assignment = {"errorCode": 401003, "message": "unauthorized"}
    with provisioned(lane, service, authority, key=KEY) as probe:
        error = probe.expect("error", number=probe.do("wait", timeout=1.5))
        assert error["code"] == "refused" and "401" in error["text"]


def test_a_wrong_scope_key_is_refused_at_once(lane: str, authority: Authority) -> None:
    with FakeHub(authority.folder / "server.pem") as service:
        service.refuse = 5
        with provisioned(lane, service, authority, key=KEY) as probe:
            error = probe.expect("error", number=probe.do("wait", timeout=1))
            assert error["code"] == "refused"
