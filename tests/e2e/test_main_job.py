"""The main job: an application's connections arrive at the hub, counted right."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub, wait_for

from .conftest import MPY32, QUICK, Agent, flows_to, rows, settled
from .peers import free_range, tcp_echo, udp_sink

# At `go`, sends FLOWS datagram flows to one port without a break, so that they fall into one
# interval; flow i comes from port FIRST + i and has i % 5 + 1 datagrams of i + 1 bytes. At
# `again`, sends 5 flows more.
UDP_APP = """
import asyncio, os, socket

FLOWS, PORT, FIRST = %d, %d, %d
TARGET = socket.getaddrinfo("127.0.0.1", PORT)[0][-1]

def flow(i):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(socket.getaddrinfo("127.0.0.1", FIRST + i)[0][-1])
    for _ in range(i %% 5 + 1):
        s.sendto(bytes(i + 1), TARGET)
    s.close()

async def main():
    while not exists("go"):
        await asyncio.sleep_ms(50)
    for i in range(FLOWS):
        flow(i)
    while not exists("again"):
        await asyncio.sleep_ms(50)
    for i in range(400, 405):
        flow(i)
    await asyncio.sleep(3600)

def exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True
"""

TCP_APP = """
import asyncio, socket

PORT = %d

def talk(size):
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", PORT)[0][-1])
    s.write(b"x" * size)
    left = 2 * size
    while left:
        left -= len(s.recv(left))
    s.close()

async def main():
    for i in range(20):
        talk(100 * i + 1)
    await asyncio.sleep(3600)
"""

# A request to a host by its name, and a datagram over IPv6.
NAMED_APP = """
import asyncio, socket

async def main():
    client = socket.socket()
    client.connect(socket.getaddrinfo("localhost", %d, socket.AF_INET, socket.SOCK_STREAM)[0][-1])
    client.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    client.recv(100)
    client.close()
    sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.sendto(b"hello", socket.getaddrinfo("::1", 5353, socket.AF_INET6)[0][-1])
    await asyncio.sleep(3600)
"""

LANES = [
    pytest.param((), id="64"),
    pytest.param(
        ("--micropython", str(MPY32)),
        id="32",
        marks=pytest.mark.skipif(not MPY32.exists(), reason="no 32-bit MicroPython here"),
    ),
]


@pytest.mark.parametrize("lane", LANES)
def test_300_flows_in_one_interval(hub: LocalHub, agent: Agent, lane: tuple[str, ...]) -> None:
    device = f"flows-300-{len(lane)}"
    connection_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": QUICK})
    with udp_sink() as sink:
        agent.start(
            connection_string, UDP_APP % (300, sink.port, free_range(405)), "--heap", "160k", *lane
        )
        settled(hub, device)
        (agent.board / "go").touch()
        records = hub.wait_events(device, lambda found: len(flows_to(found, sink.port)) >= 256)
        (agent.board / "again").touch()
        records = hub.wait_events(device, lambda found: len(flows_to(found, sink.port)) > 256)
        time.sleep(0.3)  # the sink's thread reads what is in its buffer
        sent = [(sink.bytes[port], sink.datagrams[port]) for port in sink.datagrams]
    flows = flows_to(records, sink.port)
    first, later = flows[:256], flows[256:]
    assert {row["remote_address"] for row in first} == {"127.0.0.1"}
    assert len({row["local_port"] for row in flows}) == 261
    assert all(row["transport_protocol"] == "UDP" and row["direction"] == "Out" for row in flows)
    assert all(row["bytes_in"] == 0 for row in flows)
    # Right counts, against what arrived at the other end, port by port.
    for row in flows:
        port = row["local_port"]
        assert row["bytes_out"] == sink.bytes[port], port
        assert row["hit_count"] == sink.datagrams[port], port
    assert len(sent) == 305
    # The next interval started empty, and had room again.
    sizes = sorted(row["bytes_out"] for row in later)
    assert sizes == sorted((i + 1) * (i % 5 + 1) for i in range(400, 405))
    refused = sum(i % 5 + 1 for i in range(256, 300))
    last = hub.wait_events(
        device, lambda found: any(r["flows_refused"] for r in rows(found, "Statistics"))
    )
    statistics = rows(last, "Statistics")[-1]
    assert statistics["flows_refused"] == 44
    assert statistics["hits_refused"] == refused
    assert statistics["table_high_water"] == 256


@pytest.mark.parametrize("lane", LANES)
def test_tcp_bytes_are_what_the_server_saw(
    hub: LocalHub, agent: Agent, lane: tuple[str, ...]
) -> None:
    device = f"tcp-bytes-{len(lane)}"
    connection_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": QUICK})
    with tcp_echo() as echo:
        agent.start(connection_string, TCP_APP % echo.port, *lane)
        records = hub.wait_events(device, lambda found: len(flows_to(found, echo.port)) == 20)
        wait_for(lambda: echo.received, lambda received: len(received) == 20)
    for row in flows_to(records, echo.port):
        size = echo.received[row["local_port"]]
        assert (row["bytes_out"], row["bytes_in"], row["hit_count"]) == (size, 2 * size, 1)
        assert (row["local_address"], row["remote_address"]) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.parametrize("lane", LANES)
def test_a_flow_is_told_with_its_host_and_its_protocol(
    hub: LocalHub, agent: Agent, lane: tuple[str, ...]
) -> None:
    device = f"named-{len(lane)}"
    connection_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": QUICK})
    with tcp_echo() as echo:
        agent.start(connection_string, NAMED_APP % echo.port, *lane)
        records = hub.wait_events(
            device, lambda found: flows_to(found, echo.port) and flows_to(found, 5353)
        )
    (http,), (mdns,) = flows_to(records, echo.port), flows_to(records, 5353)
    assert http["extended_properties"] == {"host_name": "localhost"}
    assert (http["application_protocol"], http["bytes_out"]) == ("HTTP", 18)
    assert (mdns["remote_address"], mdns["local_address"]) == ("::1", "::1")
    assert (mdns["application_protocol"], mdns["bytes_out"]) == ("mDNS", 5)
    assert mdns["extended_properties"] is None


def test_the_agent_does_not_report_its_own_connection(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("own-traffic")
    hub.set_twin("own-traffic", {"microAgent": QUICK})
    agent.start(connection_string)
    hub.wait_events("own-traffic", lambda found: len(rows(found, "Statistics")) >= 2)
    assert rows(hub.events("own-traffic"), "ConnectionCreate") == []
    hub.set_twin("own-traffic", {"microAgent": {"NetworkActivity_AgentTraffic": "Include"}})
    records = hub.wait_events("own-traffic", lambda found: flows_to(found, hub.port))
    (row, *_) = flows_to(records, hub.port)
    assert row["application_protocol"] in ("MQTT", "TLS") and row["bytes_out"] > 0


def test_system_information_says_what_the_machine_is(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("system")
    twin = {**QUICK, "SystemInformation_MessageFrequency": "High"}
    hub.set_twin("system", {"microAgent": twin})
    agent.start(connection_string)
    records = hub.wait_events("system", lambda found: rows(found, "SystemInformation"))
    row = rows(records, "SystemInformation")[0]
    assert row["os_platform"] and row["os_arch"] and row["agent_version"]
    assert row["memory_total"] > row["memory_free"] > 0
    assert any(nic["name"] == "lo" or nic["ipv4_address"] for nic in row["nics"])
