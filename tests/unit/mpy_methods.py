"""The agent's direct methods, called as the hub client calls them."""

import asyncio

from hub_client import Client
from iothub import clock
from nettap import sockets
from vedette import lifecycle, log, tap
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.store import Store

log.level = 0
_QUIET = {"%s_Disabled" % name: True for name in ("Baseline", "ListeningPorts", "Process")}


async def _start(desired=_QUIET):
    client = Client()
    agent = Agent(client, False, True, Store("state"), Outbox(16384))
    lifecycle.begin(agent)
    client.push(dict(desired), 1, True)
    await client.until(1)
    return client, agent


def _connect():
    token = tap.table.open(6, 1, bytes((10, 0, 0, 7)), 40000, bytes((10, 0, 0, 9)), 443)
    tap.table.count_out(token, 100)


async def _arrived(client, name):
    for _ in range(300):
        if client.named(name):
            return client.named(name)
        await asyncio.sleep_ms(10)
    raise AssertionError("no %s" % name)


async def test_collect_now_sends_what_one_collector_has_at_once():
    client, agent = await _start()
    _connect()
    assert await client.methods["collectNow"]({"collector": "NetworkActivity"}) == (
        200,
        {"collected": ["NetworkActivity"]},
    )
    assert len(await _arrived(client, "ConnectionCreate")) == 1
    assert not client.named("Heartbeat")
    await agent.stop()


async def test_collect_now_without_a_name_is_for_all_that_are_not_disabled():
    client, agent = await _start(dict(_QUIET, SystemInformation_Disabled=True))
    status, answer = await client.methods["collectNow"](None)
    assert (status, answer["collected"]) == (200, ["NetworkActivity", "Heartbeat", "Statistics"])
    await _arrived(client, "Statistics")
    assert client.named("Heartbeat") and not client.named("SystemInformation")
    await agent.stop()


async def test_a_collector_that_raises_is_counted_and_does_not_stop_the_others():
    client, agent = await _start(dict(_QUIET, ListeningPorts_Disabled=None))
    _connect()
    real, sockets.listening = sockets.listening, None
    status, answer = await client.methods["collectNow"](None)
    sockets.listening = real
    expected = ["NetworkActivity", "SystemInformation", "Heartbeat", "Statistics"]
    assert (status, answer["collected"]) == (200, expected), answer
    (statistics,) = await _arrived(client, "Statistics")
    values = dict(zip(statistics["Payload"]["columns"], statistics["Payload"]["rows"][0]))
    assert values["job_errors"] == 1, values
    await agent.stop()


async def test_a_payload_that_is_no_good_is_answered_400_with_the_reason():
    client, agent = await _start()
    for payload, part in (
        (5, "collector"),
        ([], "collector"),
        ({"colour": "Heartbeat"}, "collector"),
        ({"collector": "Heartbeat", "b": 1}, "collector"),
        ({"collector": "Nothing"}, "NetworkActivity, Process"),
        ({"collector": ["Heartbeat"]}, "must be one of"),
        ({"collector": None}, "must be one of"),
        ({"collector": "Process"}, "disabled"),
    ):
        status, answer = await client.methods["collectNow"](payload)
        assert status == 400 and part in answer["error"], (payload, answer)
    for name in ("getStatus", "getBaseline", "restart", "selfTest"):
        assert (await client.methods[name]({"a": 1}))[0] == 400
    await agent.stop()


async def test_status_has_counters_configuration_and_versions():
    client, agent = await _start(dict(_QUIET, Message_Format="objects"))
    status, answer = await client.methods["getStatus"](None)
    assert status == 200 and answer["applied_version"] == 1 and answer["connected"] is True
    assert answer["configuration"]["Message_Format"] == "objects"
    assert answer["statistics"]["messages_sent"] == agent.sender.sent
    assert answer["agent_version"].count(".") == 2 and answer["micropython"]
    await agent.stop()


async def test_counters_of_the_day_are_not_those_of_the_day_before():
    client, agent = await _start()
    today = clock.unix() // 86400
    for day, expected in ((today, [5, 6, 7]), (today - 1, [0, 0, 0])):
        agent.sender.day[:] = (day, 5, 6, 7)
        _, answer = await client.methods["getStatus"](None)
        told = [answer["statistics"]["day_" + name] for name in ("messages", "units", "bytes")]
        assert told == expected, told
    await agent.stop()


async def test_the_self_test_goes_all_the_way():
    client, agent = await _start()
    assert await client.methods["selfTest"](None) == (200, {})
    (event,) = await _arrived(client, "Alert")
    assert event["EventType"] == "Security"
    assert event["Payload"]["rows"][0][0] == "SelfTest"
    await agent.stop()


async def test_restart_loses_nothing_and_collects_again():
    client, agent = await _start()
    _connect()
    assert await client.methods["restart"](None) == (200, {})
    assert len(await _arrived(client, "ConnectionCreate")) == 1
    _connect()
    await agent.collect("NetworkActivity")
    await agent.stop()
    assert len(client.named("ConnectionCreate")) == 2


async def test_a_method_of_the_application_stays_its_own():
    client = Client()
    client.methods["restart"] = own = object()
    agent = Agent(client, False, True, Store("shared"), Outbox(16384))
    lifecycle.begin(agent)
    assert client.methods["restart"] is own and "getStatus" in client.methods
    await agent.stop()


async def test_an_agent_that_is_stopped_right_after_restart_stays_stopped():
    client, agent = await _start()
    assert await client.methods["restart"](None) == (200, {})
    await agent.stop()
    await asyncio.sleep(1.5)
    assert not agent.running
