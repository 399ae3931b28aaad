"""Ten minutes without a hub, thirty times as fast: everything arrives, the most urgent first."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub

from .conftest import Agent, flows_to, settled
from .peers import udp_sink
from .test_twin import sizes

# A datagram every ten seconds from a port of its own: the n-th has n bytes.
APP = """
import asyncio, socket

TARGET = socket.getaddrinfo("127.0.0.1", %d)[0][-1]

async def main():
    size = 0
    while True:
        size += 1
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(bytes(size), TARGET)
        s.close()
        await asyncio.sleep(10)
"""
TWIN = {
    "CollectorsCore_PriorityIntervals": "1,2,1440",
    "NetworkActivity_MessageFrequency": "High",
    "Statistics_MessageFrequency": "Medium",
}
PRIORITY = {"ConnectionCreate": 0, "Statistics": 1}
FASTER = 30
OUTAGE_S = 600


@pytest.mark.slow
def test_ten_minutes_without_a_hub(own_hub: LocalHub, own_agent: Agent) -> None:
    connection_string = own_hub.create_device("outage")
    own_hub.set_twin("outage", {"microAgent": TWIN})
    with udp_sink() as sink:
        own_agent.start(connection_string)
        settled(own_hub, "outage")
        own_agent.stop()
        (own_agent.board / "app.py").write_text(APP % sink.port)
        own_agent.run_board(faster=FASTER)
        own_hub.wait_events("outage", lambda found: len(flows_to(found, sink.port)) > 6)
        own_hub.stop()
        time.sleep(OUTAGE_S / FASTER)
        sent = sink.datagrams.total()
        own_hub.start()
        before = len(own_hub.events("outage"))
        records = own_hub.wait_events(
            "outage", lambda found: len(flows_to(found, sink.port)) > sent, 60
        )
    backlog = records[before]["body"]["Events"]
    order = [(PRIORITY.get(event["Name"], 2), event["TimestampUTC"]) for event in backlog]
    assert order == sorted(order)
    assert [priority for priority, _ in order].count(0) >= OUTAGE_S // 60 - 1
    assert [priority for priority, _ in order].count(1) >= OUTAGE_S // 120 - 1
    found = sizes(records, sink.port)
    assert found == list(range(1, len(found) + 1))
