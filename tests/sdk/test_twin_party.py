"""One device's twin, by lib/iothub on MicroPython and by azure-iot-device in turn."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hubfixture import ROOT, LocalHub

pytest.importorskip("azure.iot.device")

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient  # noqa: E402

pytestmark = pytest.mark.slow

LANES = {
    "64": ROOT / ".venv" / "bin" / "micropython",
    "32": ROOT / "build" / "mpy32" / "micropython",
}
SCRIPT = Path(__file__).with_name("twin_device.py")
Json = dict[str, Any]


def by_ours(lane: str, hub: LocalHub, folder: Path, text: str, patch: Json) -> Json:
    """Reports `patch`; returns the twin as it was before."""
    ca = folder / "ca.der"
    ca.write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    path = f"{ROOT / 'lib'}:{ROOT / 'build' / 'umqtt'}:.frozen"
    done = subprocess.run(
        [LANES[lane], SCRIPT, text, ca, json.dumps(patch)],
        env={**os.environ, "MICROPYPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    twin: Json = json.loads(done.stdout)
    return twin


def by_sdk(hub: LocalHub, text: str, patch: Json) -> Json:
    """The same, by Microsoft's client."""
    kind = IoTHubModuleClient if "ModuleId" in text else IoTHubDeviceClient
    client = kind.create_from_connection_string(text, server_verification_cert=hub.ca.read_text())
    client.connect()
    twin: Json = client.get_twin()
    client.patch_twin_reported_properties(patch)
    client.shutdown()
    return twin


def values(properties: Json) -> Json:
    return {name: value for name, value in properties.items() if name[0] != "$"}


@pytest.mark.parametrize("module", [None, "agent"])
@pytest.mark.parametrize("lane", LANES)
def test_what_one_reports_the_other_reads(
    hub: LocalHub, tmp_path: Path, lane: str, module: str | None
) -> None:
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    name = f"party-{lane}-{module}"
    text = hub.create_device(name, module)
    desired = {"interval": 30, "deep": {"list": [1], "text": "grün"}}
    hub.set_twin(name, desired, module)

    ours = {"state": "ok", "nested": {"a": 1, "b": 2.5, "ü": "ß"}, "gone": True, "big": 2**40}
    twin = by_ours(lane, hub, tmp_path, text, ours)
    assert values(twin["desired"]) == desired and values(twin["reported"]) == {}
    version = twin["reported"]["$version"]

    theirs = {"nested": {"a": None, "c": [1, 2]}, "gone": None, "by": "sdk"}
    twin = by_sdk(hub, text, theirs)
    assert values(twin["desired"]) == desired and values(twin["reported"]) == ours
    assert twin["reported"]["$version"] == version + 1

    twin = by_ours(lane, hub, tmp_path, text, {"by": "ours"})
    merged = {**ours, "nested": {"b": 2.5, "ü": "ß", "c": [1, 2]}, "by": "sdk"}
    del merged["gone"]
    assert values(twin["reported"]) == merged
    assert twin["reported"]["$version"] == version + 2
    assert values(by_sdk(hub, text, {})["reported"]) == {**merged, "by": "ours"}
