"""A new root certificate that comes through the twin."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from device import Device, connection_string, lane
from fakehub import FakeHub
from hubfixture import wait_for
from pki import Authority

__all__ = ["lane"]


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path, "old")
    authority.issue("old-server")
    return authority


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path, "new")
    authority.issue("new-server")
    return authority


@pytest.fixture
def hub(old: Authority) -> Iterator[FakeHub]:
    with FakeHub(old.folder / "old-server.pem") as hub:
        yield hub


def offer(hub: FakeHub, root: str) -> None:
    desired = {"hubRoot": root, "$version": 2}
    hub.twin = json.dumps({"desired": desired, "reported": {"$version": 1}}).encode()


def reported(hub: FakeHub) -> list[str]:
    return [
        json.loads(body)["hubRoot"]
        for _, topic, body in hub.published
        if topic.startswith("$iothub/twin/PATCH/properties/reported/")
    ]


def wait_reported(hub: FakeHub, state: str) -> None:
    """Waits until the device reports `state`."""
    wait_for(lambda: reported(hub)[-1:], lambda last: last == [state])


def test_a_root_is_kept_once_the_hub_is_reached_with_it(
    lane: str, hub: FakeHub, old: Authority, new: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "kept.der"
    offer(hub, base64.b64encode(new.der.read_bytes()).decode())
    with Device(lane, connection_string(hub.port), old.der, roots=str(path)) as probe:
        probe.expect("connection", up=False, code="certificate")  # the trial: not this hub's yet
        probe.expect("connection", up=True)
        assert not path.exists()
        hub.show(new.folder / "new-server.pem")  # the hub changes over
        hub.drop()
        probe.expect("connection", up=False, code="certificate")
        probe.expect("connection", up=True)
        wait_reported(hub, "kept")
        assert path.read_bytes() == new.der.read_bytes()
    with Device(lane, connection_string(hub.port), old.der, roots=str(path)) as probe:
        probe.expect("connection", up=True)


def test_what_is_no_certificate_changes_nothing(
    lane: str, hub: FakeHub, old: Authority, tmp_path: Path
) -> None:
    offer(hub, "bm9uc2Vuc2U=")
    with Device(lane, connection_string(hub.port), old.der, roots=str(tmp_path / "r")) as probe:
        probe.expect("connection", up=True)
        wait_reported(hub, "malformed")
        assert not any(t["event"] == "connection" and not t["up"] for t in probe.told)
