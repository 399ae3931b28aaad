"""main.py with other proofs of who it is than a connection string's key."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
from typing import Any

import certificates
import pytest
from hubfixture import LocalHub
from mainpy import Board


def run(board: Board, hub: LocalHub, config: dict[str, Any]) -> str:
    """What main.py says until it is connected."""
    (board.folder / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    app = "import asyncio\nasync def main():\n    await asyncio.sleep(20)"
    code, output = board.run({"ca": "ca.der", **config}, app, "connected")
    assert code == 0 and "connected" in output, output
    return output


@pytest.fixture
def name(board: Board) -> str:
    """The id of a device of this test's own."""
    return f"identity-{board.folder.name}".replace("_", "-")


def test_a_certificate(board: Board, hub: LocalHub, name: str) -> None:
    made = certificates.make(board.folder, name)
    for source, target in zip(made.der, ("cert.der", "key.der"), strict=True):
        shutil.copy(source, board.folder / target)
    thumbprint = hashlib.sha256((board.folder / "cert.der").read_bytes()).hexdigest()
    proof = {"x509Thumbprint": {"primaryThumbprint": thumbprint}}
    hub.service.request("PUT", f"/devices/{name}", {"deviceId": name, "authentication": proof})
    text = f"HostName=localhost:{hub.port};DeviceId={name};x509=true"
    run(board, hub, {"connection_string": text, "certificate": ["cert.der", "key.der"]})
    hub.wait_reported(name, lambda twin: "microAgent" in twin)


def test_the_provisioning_service_is_asked_once(board: Board, hub: LocalHub, name: str) -> None:
    hub.service.request("PUT", f"/enrollments/{name}", {})
    key = hub.service.request("GET", f"/enrollments/{name}")["attestation"]["symmetricKey"]
    connection = hub.connection
    provisioning = {
        "scope": connection["dps_scope"],
        "registration_id": name,
        "key": key["primaryKey"],
        "host": f"{connection['dps_host']}:{connection['dps_port']}",
    }
    run(board, hub, {"provisioning": provisioning})
    hub.wait_reported(name, lambda twin: "microAgent" in twin)
    kept = (board.folder / "vedette-state" / "hub.json").read_text()
    assert json.loads(kept)["device"] == name and key["primaryKey"] not in kept
    # The hub it was assigned to is remembered: it needs the service no more.
    run(board, hub, {"provisioning": {**provisioning, "host": "127.0.0.1:1"}})
