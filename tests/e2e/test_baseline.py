"""The baseline from the twin to the hub and back: a check fails, is settled, is switched off."""

from __future__ import annotations

from hubfixture import LocalHub
from vedette_tools.expand import expand

from .conftest import QUICK, Agent, Json

APP = """
import asyncio, socket

async def main():
    listener = socket.socket()
    listener.bind(socket.getaddrinfo("127.0.7.1", %d)[0][-1])
    listener.listen(1)
    await asyncio.sleep(3600)
"""
PORT = 18080  # on an address that nothing else uses
TWIN = {
    **QUICK,
    "Baseline_MessageFrequency": "High",
    "Baseline_GroupsDisabled": "Firmware,TLS,Secrets,Hardware,Operation",
}


def found(records: list[Json], run: int, passed: int) -> list[list[Json]]:
    """The rows of each Baseline event with these counts."""
    return [
        expand(event)["Payload"]
        for record in records
        for event in record["body"]["Events"]
        if event["Name"] == "Baseline"
        and (event["ChecksRun"], event["ChecksPassed"]) == (run, passed)
    ]


def test_a_port_that_listens_is_told_of_until_the_twin_allows_it(
    hub: LocalHub, agent: Agent
) -> None:
    connection_string = hub.create_device("baseline")
    hub.set_twin("baseline", {"microAgent": TWIN})
    agent.start(connection_string, APP % PORT)
    records = hub.wait_events("baseline", lambda records: bool(found(records, 3, 2)))
    (row,) = found(records, 3, 2)[0]
    assert row["check_id"].endswith("-Network-2.8") and row["result"] == "Fail"
    assert row["error"] == f"TCP {PORT}"
    allowed = {**TWIN, "Baseline_CustomChecks": f"Network-2.8||listening {PORT}||"}
    hub.set_twin("baseline", {"microAgent": allowed})
    hub.wait_events("baseline", lambda records: [] in found(records, 3, 3))
    off = {"Baseline_ChecksDisabled": "2.7, 2.8"}
    hub.set_twin("baseline", {"microAgent": off})
    hub.wait_events("baseline", lambda records: [] in found(records, 1, 1))
