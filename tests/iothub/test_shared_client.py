"""One connection for the application and the agent."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import LANES, device_environment
from device import lane
from hubfixture import LocalHub
from vedette_tools import mpy

__all__ = ["lane"]

SCRIPT = Path(__file__).with_name("shared_client.py")
AGENT = "urn:azureiot:Security:SecurityAgent:1"


def call(hub: LocalHub, name: str, method: str, payload: Any) -> Any:
    body = {"methodName": method, "payload": payload, "connectTimeoutInSeconds": 20}
    answer = hub.service.request("POST", f"/twins/{name}/methods", body)
    assert answer["status"] == 200
    return answer["payload"]


@pytest.mark.parametrize("linked", [False, True], ids=["as written", "linked"])
def test_both_use_it_and_neither_is_in_the_others_way(
    lane: str, linked: bool, hub: LocalHub, tmp_path: Path
) -> None:
    name = f"shared-{lane}-{linked}"
    environment = device_environment()
    if linked:  # as on a board
        code = mpy.compile_all(mpy.architecture(LANES[lane]))
        environment["MICROPYPATH"] = f"{code}:.frozen"
    text = hub.create_device(name)
    root = tmp_path / "root.der"
    root.write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    quick = {
        "CollectorsCore_PriorityIntervals": "0.05,0.05,1440",
        "Heartbeat_MessageFrequency": "High",
        "Baseline_Disabled": True,
    }
    hub.set_twin(name, {"pace": 2, "microAgent": quick})
    with subprocess.Popen(
        [LANES[lane], SCRIPT, text, root],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert call(hub, name, "blink", 7) == {"blinked": 7}
            assert "agent_version" in call(hub, name, "getStatus", None)
            hub.wait_events(name, lambda found: any("Events" in e["body"] for e in found))
            hub.service.request("POST", f"/vedette/messages/{name}", {"body": "stop"})
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, output
    applications, agents = [], []
    for event in hub.wait_events(name, lambda found: "told" in found[-1]["body"]):
        of_agent = event["systemProperties"].get("$.ifid") == AGENT
        (agents if of_agent else applications).append(event)
    assert agents and all("Events" in each["body"] for each in agents)
    assert not any("schemaError" in each for each in agents)
    counts = [each["body"]["count"] for each in applications]
    assert counts == list(range(len(counts)))
    assert set(applications[-1]["body"]["told"]) == {True, 2, "stop"}
    interval = "CollectorsCore_PriorityIntervals"
    assert hub.twin(name)["properties"]["reported"]["microAgent"][interval] == quick[interval]
    assert hub.log.read_text().count(f"{name} connected") == 1
