"""The agent with its journal: after a reset, switched off, and while it is written."""

import asyncio
import os

import vedette
from hub_client import Client
from iothub import clock
from vedette import lifecycle, log
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.store import Store

log.level = 0
_HEAD = 20  # bytes before the first record


async def test_an_agent_takes_up_where_the_last_one_was_killed():
    def agent(client):
        made = Agent(client, False, False, Store("state"), Outbox(4096), "state/journal")
        lifecycle.begin(made)
        return made

    first = agent(Client())
    first.client.connected = False
    for key in ("A", "B"):
        first.complain(key, "reason")
    first.sender.day[:] = [clock.unix() // 86400, 7, 8, 900]
    await asyncio.sleep_ms(50)
    assert first.outbox.count == 2
    for task in first.tasks:  # as a reset does: nobody says good-bye
        task.cancel()
    second = agent(Client())
    await second.sender.flush()
    events = second.client.named("ConfigurationError")
    assert [event["Payload"]["rows"][0][0] for event in events] == ["A", "B"]
    assert second.sender.day[1:3] == [8, 9]  # one message more than before the reset
    await asyncio.sleep_ms(50)
    assert os.stat("state/journal")[6] == _HEAD  # what was acknowledged is forgotten at once
    await second.stop()
    third = agent(Client())
    assert third.outbox.count == 0 and third.sender.day[1:3] == [8, 9]
    await third.stop()


async def test_one_argument_turns_it_off():
    for on in (False, True):
        agent = vedette.start(client=Client(), state="switch", journal=on)
        agent.complain("A", "reason")
        await agent.stop()
        assert ("journal" in os.listdir("switch")) == on


async def test_an_event_of_higher_priority_waits_for_the_journal_to_let_lower_ones_go():
    agent = Agent(Client(), False, False, Store("full"), Outbox(4096), "full/journal")
    agent.client.connected = False
    agent.settings.apply({"Heartbeat_MessageFrequency": "High"})
    while agent.add("Statistics", ["x" * 500], 60):
        pass
    writing = asyncio.create_task(agent.journal.save())
    await asyncio.sleep_ms(0)
    assert agent.outbox.holds
    await agent.deliver("Heartbeat", ["y" * 500], 60)
    await writing
    assert agent.outbox.dropped == 1 and agent.counters["events_refused"] == 0
