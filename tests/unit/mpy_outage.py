"""Ten minutes without a hub, in time that does not wait; then it is back."""

import warp

warp.jumping()

import asyncio  # noqa: E402

from vedette import log, tap  # noqa: E402

tap.install()

from hub_client import Client  # noqa: E402
from vedette import lifecycle  # noqa: E402
from vedette.agent import Agent  # noqa: E402
from vedette.outbox import Outbox  # noqa: E402
from vedette.store import Store  # noqa: E402

log.level = 0
_TWIN = {
    "CollectorsCore_PriorityIntervals": "0.5,1,2",
    "NetworkActivity_MessageFrequency": "High",
    "Statistics_MessageFrequency": "Medium",
    "Heartbeat_MessageFrequency": "Low",
    "SystemInformation_Disabled": True,
    "Baseline_Disabled": True,
    "ListeningPorts_Disabled": True,
}
_PRIORITY = {"ConnectionCreate": 0, "Statistics": 1}  # the others: 2


def _sight(number):
    remote = bytes((10, 0, number >> 8, number & 255))
    token = tap.table.open(6, 1, bytes((10, 0, 0, 7)), 40000 + number, remote, 443)
    tap.table.count_out(token, number + 1)


async def test_after_ten_minutes_without_a_hub_all_arrives_oldest_of_the_highest_first():
    client = Client()
    agent = Agent(client, False, False, Store("state"), Outbox(32768), "state/journal")
    lifecycle.begin(agent)
    client.push({"microAgent": _TWIN}, 1, True)
    await client.until(1)
    await asyncio.sleep(5)
    client.connected = False
    before = len(client.events)
    for number in range(60):
        _sight(number)
        await asyncio.sleep(10)
    assert len(client.events) == before and agent.journal.errors == 0
    waiting = agent.outbox.count
    client.connected = True
    agent.sender.wake()  # as the hub client does when it has connected
    await asyncio.sleep(1)
    events = client.events[before:][:waiting]
    order = [(_PRIORITY.get(event["Name"], 2), event["TimestampUTC"]) for event in events]
    assert order == sorted(order)
    beats = [event for event in events if event["Name"] == "Heartbeat"]
    assert len(beats) >= 4
    await asyncio.sleep(60)
    assert agent.outbox.count == 0
    assert agent.outbox.dropped == agent.outbox.expired == agent.counters["events_refused"] == 0
    sent = [row for event in client.named("ConnectionCreate") for row in event["Payload"]["rows"]]
    assert sorted(row[3] for row in sent) == list(range(1, 61))
    await agent.stop()
