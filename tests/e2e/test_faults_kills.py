"""`kill -9` of hub, broker and agent, at random during traffic: nothing accepted is lost.

An event is accepted once the agent's journal has it. The application in the agent's process looks
over the journal's shoulder and notes the Id of each; the datagrams that were really sent are known
at their other end.
"""

from __future__ import annotations

import collections
import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubfixture import LocalHub, wait_for

from .conftest import QUICK, Agent, Json, flows_to, rows, settled
from .peers import udp_sink

# Ten datagrams a second, each from a port of its own; and what the journal keeps is noted.
APP = """
import asyncio, socket
from vedette import events, journal
from vedette.outbox import KEPT

TARGET = socket.getaddrinfo("127.0.0.1", %d)[0][-1]
plain = journal.Journal.save

async def save(self):
    errors = self.errors
    await plain(self)
    if self.errors == errors:
        outbox = self.outbox
        with open("accepted", "a") as file:
            for offset in outbox.entries():
                _, flags, parts, _, _, _, _, _, raw = outbox.header(offset)
                if flags & KEPT:
                    for part in range(parts):
                        file.write(events.uuid(raw, part) + "\\n")

async def main():
    journal.Journal.save = save
    kept = []
    while True:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"datagram", TARGET)
        kept.append(s)
        if len(kept) > 99:
            kept.pop(0).close()
        await asyncio.sleep_ms(100)
"""
OUTAGES = (("hub", "agent"), ("broker",), ("agent",), ("hub",), ("broker", "agent"))
PAUSE_MAX_S = 4  # a collection takes place every 3 s


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[LocalHub]:
    """On ports that no connection gets by chance while the hub is away."""
    with contextlib.ExitStack() as stack:
        ports = []
        while len(ports) < 2:
            with contextlib.suppress(OSError):
                port = random.randrange(20000, 32000)
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
    hub = LocalHub(tmp_path / "hub", ports=(ports[0], ports[1]))
    hub.start()
    yield hub
    hub.stop()


def accepted(agent: Agent) -> set[str]:
    path = agent.board / "accepted"
    return set(path.read_text().split()) if path.exists() else set()


def identities(records: list[Json]) -> set[str]:
    """The Ids of all events; those that came twice came the same."""
    events: dict[str, Json] = {}
    for record in records:
        for event in record["body"]["Events"]:
            assert events.setdefault(event["Id"], event) == event
    return set(events)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random(own_hub: LocalHub, own_agent: Agent, rounds: int) -> None:
    chance = random.Random(rounds)
    connection_string = own_hub.create_device("killed")
    own_hub.set_twin("killed", {"microAgent": QUICK})
    with udp_sink() as sink:
        own_agent.start(connection_string, APP % sink.port)
        settled(own_hub, "killed")
        for number in range(rounds):
            victims = chance.choice(OUTAGES) if number else OUTAGES[0]
            for victim in victims:
                if number:
                    time.sleep(chance.uniform(0, PAUSE_MAX_S))
                elif victim == "agent":  # the hub is away: let the agent alone accept something
                    before = len(accepted(own_agent))
                    wait_for(lambda: len(accepted(own_agent)), before.__lt__)
                if victim == "agent":
                    own_agent.kill9()
                else:
                    own_hub.kill9(victim)
            if "hub" in victims:
                own_hub.start()
            if "agent" in victims:
                own_agent.run_board()
        known = accepted(own_agent)
        count = len(rows(own_hub.events("killed"), "Statistics"))
        records = own_hub.wait_events(
            "killed",
            lambda found: known <= identities(found) and len(rows(found, "Statistics")) > count,
            60,
        )
        # Each connection was really made, and is told of once.
        told = collections.Counter[int | None]()
        for row in flows_to(records, sink.port):
            told[row["local_port"]] += row["hit_count"]
        time.sleep(0.3)  # the sink's thread reads what is in its buffer
        invented = told - sink.datagrams
        assert set(invented) <= {None}  # a port that was closed before anyone asked for it
        assert told.total() <= sink.datagrams.total()
    assert len(known) >= rounds and len(told) >= 5 * rounds
    assert "Traceback" not in own_agent.log
