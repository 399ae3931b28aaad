"""The agent's direct methods, as an operator calls them: `vedette device call`."""

from __future__ import annotations

import json
import subprocess

from hubfixture import Json, LocalHub, wait_for

from .conftest import VEDETTE, Agent, rows

# Nothing is due for an hour: what comes, comes because it was asked for.
SLOW = {"CollectorsCore_PriorityIntervals": "60,60,1440", "Baseline_GroupsDisabled": "Firmware"}
APP = """
import asyncio, socket

async def main():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"twelve bytes", socket.getaddrinfo("127.0.0.9", 4321)[0][-1])
    await asyncio.sleep(3600)
"""


def call(hub: LocalHub, device: str, method: str, payload: str = "null") -> Json:
    done = subprocess.run(
        [str(VEDETTE), "device", "call", device, method, payload],
        env=hub.env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    answer: Json = json.loads(done.stdout)
    assert done.returncode == (0 if answer["status"] < 400 else 1), done.stderr
    return answer


def test_every_method_does_what_it_says(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("methods")
    hub.set_twin("methods", {"microAgent": SLOW})
    agent.start(connection_string, APP)
    hub.wait_reported("methods", lambda reported: "microAgent" in reported)

    answer = call(hub, "methods", "collectNow", '{"collector": "NetworkActivity"}')
    assert (answer["status"], answer["payload"]) == (200, {"collected": ["NetworkActivity"]})
    records = hub.wait_events("methods", lambda found: bool(rows(found, "ConnectionCreate")))
    (sent,) = [row for row in rows(records, "ConnectionCreate") if row["remote_port"] == 4321]
    assert sent["bytes_out"] == 12

    answer = call(hub, "methods", "collectNow", '{"collector": "Everything"}')
    assert answer["status"] == 400 and "NetworkActivity" in answer["payload"]["error"]

    status = call(hub, "methods", "getStatus")["payload"]
    assert status["configuration"]["CollectorsCore_PriorityIntervals"] == "60,60,1440"
    assert status["statistics"]["messages_acknowledged"] >= 1

    results = call(hub, "methods", "getBaseline")["payload"]
    assert results["columns"] == ["check_id", "result", "error"]
    assert {row[1] for row in results["rows"]} >= {"Pass", "Fail"} and len(results["rows"]) > 10

    assert call(hub, "methods", "selfTest")["status"] == 200
    records = hub.wait_events("methods", lambda found: bool(rows(found, "Alert")))
    assert [row["rule"] for row in rows(records, "Alert")] == ["SelfTest"]

    assert call(hub, "methods", "restart")["status"] == 200
    wait_for(lambda: agent.log, lambda log: log.count("vedette info: connected") == 2)
    assert call(hub, "methods", "getStatus")["status"] == 200
    assert call(hub, "methods", "nothing")["status"] == 404
