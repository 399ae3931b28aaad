"""The day's quota, as the hub counts it: what does not fit waits, and nothing is lost."""

from __future__ import annotations

import json
import time

import pytest
from hubfixture import LocalHub
from vedette_tools.hub import metering

from .conftest import QUICK, Agent, Json, rows
from .peers import udp_sink
from .test_faults_outage import APP
from .test_twin import sizes

UNITS = 3
INTERVAL_S = 3


def units(records: list[Json]) -> int:
    bodies = [json.dumps(record["body"], separators=(",", ":")) for record in records]
    return sum(metering.units(len(body)) for body in bodies)


@pytest.mark.slow
def test_what_the_quota_does_not_allow_comes_later(own_hub: LocalHub, own_agent: Agent) -> None:
    connection_string = own_hub.create_device("quota")
    own_hub.set_twin("quota", {"microAgent": {**QUICK, "Message_DailyQuota": UNITS}})
    with udp_sink() as sink:
        own_agent.start(connection_string, APP.replace("sleep(10)", "sleep(1)") % sink.port)
        own_hub.wait_events("quota", lambda found: units(found) == UNITS)
        time.sleep(3 * INTERVAL_S)  # in which there would be messages
        held_back = own_hub.events("quota")
        sent = sink.datagrams.total()
        assert units(held_back) == UNITS and len(sizes(held_back, sink.port)) < sent
        own_hub.set_twin("quota", {"microAgent": {"Message_DailyQuota": None}})
        records = own_hub.wait_events(
            "quota", lambda found: len(sizes(found, sink.port)) > sent, 60
        )
    found = sizes(records, sink.port)
    assert found == list(range(1, len(found) + 1))
    waits = rows(records, "Statistics")[-1]["quota_waits"]
    assert waits > 0
