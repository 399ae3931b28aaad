"""Alerts on real traffic and real logins, on a clock that runs faster: a look is every 30 s."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub, wait_for

from .conftest import Agent, rows, settled
from .peers import udp_sink

# Once there is a file "go": twenty datagrams of 100 bytes, each a flow of its own, one to an
# address that is not of the loopback's network but leads there, and later two ports that listen.
APP = """
import asyncio, os, socket

def send(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(bytes(100), socket.getaddrinfo(address, %d)[0][-1])
    s.close()

async def main():
    while "go" not in os.listdir():
        await asyncio.sleep(1)
    for _ in range(20):
        send("127.0.0.1")
    send("0.0.0.0")
    await asyncio.sleep(45)  # what listens at the first look is not new
    listeners = [socket.socket(), socket.socket()]
    for number, listener in enumerate(listeners):
        listener.bind(socket.getaddrinfo("127.0.7.2", 18081 + number)[0][-1])
        listener.listen(1)
    await asyncio.sleep(36000)
"""
RULES = {
    "Alerts_AllowedAddresses": "10.0.0.0/8",
    "Alerts_FlowsLimit": 15,
    "Alerts_PortsLimit": 1,
    "Alerts_UnknownPort": True,
    "Alerts_BytesOutLimit": 1500,
    "Alerts_FailedLoginsLimit": 3,
    "Alerts_ChangedFile": True,
}
BENIGN = {
    "Alerts_AllowedAddresses": "0.0.0.0/8, 10.0.0.0/8",
    "Alerts_FlowsLimit": 25,
    "Alerts_PortsLimit": 2,
    "Alerts_UnknownPort": False,
    "Alerts_BytesOutLimit": 2500,
    "Alerts_FailedLoginsLimit": 100,
    "Alerts_ChangedFile": False,
}
TOLD = [
    "AllowedAddresses",
    "BytesOutLimit",
    "ChangedFile",
    "FailedLoginsLimit",
    "FlowsLimit",
    "PortsLimit",
    "UnknownPort",
    "UnknownPort",
]
FASTER = 20
REFUSING_S = 15
LOOK_S = 30


@pytest.mark.slow
@pytest.mark.parametrize("rules", [RULES, BENIGN], ids=["set-off", "benign"])
def test_each_rule_that_the_twin_sets_is_set_off_by_what_is_beyond_it(
    own_hub: LocalHub, own_agent: Agent, rules: dict[str, object]
) -> None:
    connection_string = own_hub.create_device("alerts")
    with udp_sink() as sink:
        own_agent.start(connection_string)
        settled(own_hub, "alerts")
        own_agent.stop()
        (own_agent.board / "app.py").write_text(APP % sink.port)
        (own_agent.board / "deployed.txt").write_text(f"vedette 0.1.0\n{'0' * 64} 0 app.py\n")
        own_agent.run_board(faster=FASTER)
        wait_for(lambda: own_hub.connected("alerts"), bool)
        own_hub.set_twin("alerts", {"microAgent": rules})
        settled(own_hub, "alerts")
        (own_agent.board / "go").touch()
        wait_for(lambda: sink.datagrams.total(), lambda total: total == 21)
    own_hub.fault("quota", for_=REFUSING_S)  # logins are refused
    wait_for(lambda: own_agent.log, lambda log: "hub: refused" in log)
    wait_for(lambda: own_agent.log.count("info: connected"), lambda times: times == 3, 60)
    time.sleep(2 * LOOK_S / FASTER)  # for what must not come
    wait_for(
        lambda: sorted(row["rule"] for row in rows(own_hub.events("alerts"), "Alert")),
        lambda told: told == (TOLD if rules is RULES else []),
    )
