"""Ten minutes without a hub, thirty times as fast: what arrives, and the most urgent first."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub

from .conftest import Agent, flows_to, rows, settled
from .peers import UdpSink, udp_sink
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


def without_a_hub(
    hub: LocalHub, agent: Agent, sink: UdpSink, **settings: object
) -> tuple[int, int]:
    """The messages before, and the datagrams until its end. `settings` come while it runs."""
    connection_string = hub.create_device("outage")
    hub.set_twin("outage", {"microAgent": TWIN})
    config = agent.folder / "config.json"
    config.write_text('{"outbox_size": 8192}')  # so that nothing has to make room
    agent.start(connection_string, "", "--config", str(config))
    settled(hub, "outage")
    agent.stop()
    (agent.board / "app.py").write_text(APP % sink.port)
    agent.run_board(faster=FASTER)
    hub.wait_events("outage", lambda found: len(flows_to(found, sink.port)) > 6)
    hub.set_twin("outage", {"microAgent": settings})
    settled(hub, "outage")
    hub.stop()
    time.sleep(OUTAGE_S / FASTER)
    sent = sink.datagrams.total()
    hub.start()
    return len(hub.events("outage")), sent


@pytest.mark.slow
def test_ten_minutes_without_a_hub(own_hub: LocalHub, own_agent: Agent) -> None:
    with udp_sink() as sink:
        before, sent = without_a_hub(own_hub, own_agent, sink)
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


@pytest.mark.slow
def test_what_waited_longer_than_the_twin_says_is_dropped(
    own_hub: LocalHub, own_agent: Agent
) -> None:
    with udp_sink() as sink:
        _, sent = without_a_hub(own_hub, own_agent, sink, IothubModule_MessageTimeout=3)
        records = own_hub.wait_events(
            "outage", lambda found: max(sizes(found, sink.port)) > sent + 12, 60
        )
    found = sizes(records, sink.port)
    assert len(set(found)) == len(found)
    missing = sorted(set(range(1, max(found))) - set(found))
    # Of ten minutes all but the last three, and what it took to find the hub again.
    assert len(missing) >= 36 and missing == list(range(missing[0], missing[-1] + 1))
    assert missing[-1] < sent
    assert rows(records, "Statistics")[-1]["events_expired"] >= 6
