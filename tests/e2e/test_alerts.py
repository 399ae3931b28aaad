"""Alerts on real traffic and real logins, on a clock that runs faster: a look is every 30 s."""

from __future__ import annotations

import time

import pytest
from hubfixture import LocalHub, wait_for

from .conftest import Agent, rows, settled
from .peers import udp_sink

# Twenty datagrams of 100 bytes, each a flow of its own, and later a port that listens.
APP = """
import asyncio, socket

async def main():
    for _ in range(20):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(bytes(100), socket.getaddrinfo("127.0.0.1", %d)[0][-1])
        s.close()
    await asyncio.sleep(45)
    listener = socket.socket()
    listener.bind(socket.getaddrinfo("127.0.7.2", 18081)[0][-1])
    listener.listen(1)
    await asyncio.sleep(36000)
"""
RULES = {
    "Alerts_FlowsLimit": 15,
    "Alerts_BytesOutLimit": 1500,
    "Alerts_FailedLoginsLimit": 3,
    "Alerts_UnknownPort": True,
}
BENIGN = {
    "Alerts_FlowsLimit": 25,
    "Alerts_BytesOutLimit": 2500,
    "Alerts_FailedLoginsLimit": 100,
    "Alerts_UnknownPort": False,
}
FASTER = 20
REFUSING_S = 15
LOOK_S = 30


@pytest.mark.slow
@pytest.mark.parametrize("rules", [RULES, BENIGN], ids=["set-off", "benign"])
def test_each_rule_is_set_off_by_what_is_beyond_it(
    own_hub: LocalHub, own_agent: Agent, rules: dict[str, object]
) -> None:
    connection_string = own_hub.create_device("alerts")
    own_hub.set_twin("alerts", {"microAgent": rules})
    with udp_sink() as sink:
        own_agent.start(connection_string)
        settled(own_hub, "alerts")
        own_agent.stop()
        (own_agent.board / "app.py").write_text(APP % sink.port)
        own_agent.run_board(faster=FASTER)
        wait_for(lambda: own_hub.connected("alerts"), bool)
    own_hub.fault("quota", for_=REFUSING_S)  # logins are refused
    wait_for(lambda: own_agent.log, lambda log: "hub: refused" in log)
    wait_for(lambda: own_agent.log.count("info: connected"), lambda times: times == 3, 60)
    time.sleep(2 * LOOK_S / FASTER)  # for what must not come
    expected = ["BytesOutLimit", "FailedLoginsLimit", "FlowsLimit", "UnknownPort"]
    wait_for(
        lambda: sorted(row["rule"] for row in rows(own_hub.events("alerts"), "Alert")),
        lambda told: told == (expected if rules is RULES else []),
    )
