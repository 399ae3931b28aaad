"""The twin configures the agent: at once, as a whole or not at all, and without loss."""

from __future__ import annotations

import json
import time

from hubfixture import LocalHub, wait_for

from .conftest import QUICK, Agent, Json, flows_to, rows, settled
from .peers import UdpSink, udp_sink
from .test_methods import SLOW, call

# Two datagrams a second from ports of their own, for ever: flow i has i + 1 bytes.
STEADY_APP = """
import asyncio, socket

TARGET = socket.getaddrinfo("127.0.0.1", %d)[0][-1]
kept = []

async def main():
    i = 0
    while True:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(bytes(i + 1), TARGET)
        kept.append(s)
        i += 1
        await asyncio.sleep_ms(500)
"""

# For each file "burst" so many datagrams, each from a port of its own: the n-th has n bytes.
BURST_APP = """
import asyncio, os, socket

TARGET = socket.getaddrinfo("127.0.0.1", %d)[0][-1]

async def main():
    while True:
        await asyncio.sleep_ms(50)
        try:
            os.remove("burst")
        except OSError:
            continue
        kept = []  # or a port could come twice
        for size in range(1, %d):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.sendto(bytes(size), TARGET)
            kept.append(s)
        for s in kept:
            s.close()
"""


def burst(
    hub: LocalHub, device: str, agent: Agent, sink: UdpSink, count: int, told: int
) -> list[Json]:
    """Has the application send, and the agent collect; the messages, once they tell so many."""
    before = len(hub.events(device))
    sent = sink.datagrams.total()
    (agent.board / "burst").touch()
    wait_for(lambda: sink.datagrams.total(), lambda total: total == sent + count)
    call(hub, device, "collectNow", '{"collector": "NetworkActivity"}')
    return wait_for(
        lambda: hub.events(device)[before:],
        lambda found: len(flows_to(found, sink.port)) >= told,
    )


def sizes(records: list[Json], port: int) -> list[int]:
    return sorted(row["bytes_out"] for row in flows_to(records, port))


def test_a_change_of_the_interval_takes_effect_at_once_and_loses_nothing(
    hub: LocalHub, agent: Agent
) -> None:
    connection_string = hub.create_device("interval")
    # At first an interval of an hour: nothing would come within this test.
    slow = {**QUICK, "CollectorsCore_PriorityIntervals": "60,60,1440"}
    hub.set_twin("interval", {"microAgent": slow})
    with udp_sink() as sink:
        agent.start(connection_string, STEADY_APP % sink.port)
        settled(hub, "interval")
        time.sleep(1)
        before = len(
            flows_to(hub.events("interval"), sink.port)
        )  # handed over at the first change
        wait_for(lambda: sink.bytes, lambda received: len(received) >= before + 6)
        assert len(flows_to(hub.events("interval"), sink.port)) == before
        hub.set_twin("interval", {"microAgent": QUICK})
        # What was collected is handed over at the change; from then on, every three seconds.
        records = hub.wait_events(
            "interval", lambda found: len(flows_to(found, sink.port)) >= before + 14
        )
        found = sizes(records, sink.port)
        assert found == list(range(1, len(found) + 1))


def test_a_bad_twin_is_reported_and_the_old_one_runs_on(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("bad-twin")
    hub.set_twin("bad-twin", {"microAgent": QUICK})
    with udp_sink() as sink:
        agent.start(connection_string, STEADY_APP % sink.port)
        good = settled(hub, "bad-twin")
        assert good["latest_state"] == "success"
        hub.set_twin(
            "bad-twin",
            {
                "microAgent": {
                    "NetworkActivity_CacheSize": 1000,
                    "Message_Format": "xml",
                    "Process_Disabled": True,
                }
            },
        )
        reported = hub.wait_reported(
            "bad-twin", lambda r: r["microAgent"]["latest_state"] == "failed"
        )["microAgent"]
        invalid = {field["key"]: field["reason"] for field in reported["latest_invalid_fields"]}
        assert set(invalid) == {"NetworkActivity_CacheSize", "Message_Format"}
        assert "256" in invalid["NetworkActivity_CacheSize"]
        assert "objects" in invalid["Message_Format"]
        assert reported["applied_version"] == good["applied_version"]
        # The old interval goes on, and not even the good key of the bad document was taken.
        count = len(flows_to(hub.events("bad-twin"), sink.port))
        records = hub.wait_events(
            "bad-twin", lambda found: len(flows_to(found, sink.port)) >= count + 8
        )
        found = sizes(records, sink.port)
        assert found == list(range(1, len(found) + 1))
        keys = [row["key"] for row in rows(records, "ConfigurationError")]
        assert sorted(keys) == ["Message_Format", "NetworkActivity_CacheSize"]
        # Mended, it is applied.
        mended = {"NetworkActivity_CacheSize": 64, "Message_Format": "objects"}
        hub.set_twin("bad-twin", {"microAgent": mended})
        assert settled(hub, "bad-twin")["latest_state"] == "success"
        records = hub.wait_events(
            "bad-twin",
            lambda found: any(
                isinstance(event["Payload"], list)
                for record in found
                for event in record["body"]["Events"]
            ),
        )
        assert all("schemaError" not in record or not record["schemaError"] for record in records)


def test_a_module_has_its_keys_at_the_root(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("with-module", "security")
    hub.set_twin("with-module", QUICK, "security")
    with udp_sink() as sink:
        agent.start(connection_string, STEADY_APP % sink.port)
        records = hub.wait_events("with-module", lambda found: flows_to(found, sink.port))
        assert {record["moduleId"] for record in records} == {"security"}
        reported = hub.twin("with-module", "security")["properties"]["reported"]
        assert reported["latest_state"] == "success"


def test_the_rule_for_a_full_table_is_the_twins(hub: LocalHub, agent: Agent) -> None:
    device = "overflow"
    connection_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": {**SLOW, "NetworkActivity_CacheSize": 16}})
    with udp_sink() as sink:
        agent.start(connection_string, BURST_APP % (sink.port, 21))
        settled(hub, device)
        for rule, expected in (("DropOldest", range(5, 21)), ("DropNew", range(1, 17))):
            hub.set_twin(device, {"microAgent": {"NetworkActivity_OverflowPolicy": rule}})
            settled(hub, device)
            records = burst(hub, device, agent, sink, 20, 16)
            assert sizes(records, sink.port) == list(expected)
        statistics = call(hub, device, "getStatus")["payload"]["statistics"]
        assert (statistics["flows_evicted"], statistics["flows_refused"]) == (4, 4)
    records = hub.events(device)
    assert [row["key"] for row in rows(records, "ConfigurationError")] == [
        "NetworkActivity_CacheSize"  # gave way; what is refused is in Statistics
    ]


def test_the_size_of_messages_is_the_twins(hub: LocalHub, agent: Agent) -> None:
    device = "max-size"
    connection_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": {**SLOW, "Message_Format": "objects"}})
    with udp_sink() as sink:
        agent.start(connection_string, BURST_APP % (sink.port, 41))
        for most, messages in ((4096, range(4, 8)), (16384, range(1, 3))):
            hub.set_twin(device, {"microAgent": {"Message_MaxSize": most}})
            settled(hub, device)
            records = burst(hub, device, agent, sink, 40, 40)
            assert sizes(records, sink.port) == list(range(1, 41))
            bodies = [json.dumps(r["body"], separators=(",", ":")) for r in records]
            lengths = [len(body) for body in bodies if "ConnectionCreate" in body]
            assert max(lengths) <= most and len(lengths) in messages
