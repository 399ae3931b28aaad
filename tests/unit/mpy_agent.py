"""The agent around a stand-in hub client: twins, hand-over, restart of collectors, stopping."""

import asyncio

import micropython
from hub_client import Client
from iothub import clock
from vedette import events, lifecycle, log, tap
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.store import Store

log.level = 0
_QUIET = {
    "SystemInformation_Disabled": True,
    "Heartbeat_Disabled": True,
    "Statistics_Disabled": True,
}
_DROP_OLDEST = dict(
    _QUIET, NetworkActivity_CacheSize=16, NetworkActivity_OverflowPolicy="DropOldest"
)


def _start(module=False, outbox_size=16384, store="state"):
    client = Client()
    agent = Agent(client, False, module, Store(store), Outbox(outbox_size))
    lifecycle.begin(agent)
    return client, agent


def _connect(number=1):
    token = tap.table.open(6, 1, bytes((10, 0, 0, 7)), 40000, bytes((10, 0, 9, number)), 80)
    return tap.table.count_out(token, 100)


async def test_a_change_hands_over_first_in_the_old_form_and_then_applies():
    client, agent = _start()
    client.push({"microAgent": dict(_QUIET)}, 1, True)
    await client.until(1)
    _connect()
    client.push(
        {"microAgent": {"Message_Format": "objects", "NetworkActivity_CacheSize": 16}}, 2, False
    )
    state = (await client.until(2))["microAgent"]
    assert (state["latest_state"], state["applied_version"]) == ("success", 2)
    assert state["Message_Format"] == "objects" and state["Heartbeat_Disabled"]
    for number in range(20):
        _connect(number)
    await agent.stop()
    before, after = client.named("ConnectionCreate")
    assert "rows" in before["Payload"] and len(before["Payload"]["rows"]) == 1
    assert len(after["Payload"]) == 16  # the table took on its new size


async def test_a_bad_document_changes_nothing_and_is_reported_with_reasons():
    client, agent = _start()
    client.push({"microAgent": dict(_QUIET, Message_MaxSize=8192)}, 1, True)
    await client.until(1)
    bad = {"Message_MaxSize": 1, "Message_Format": "objects", "Colour": "red"}
    client.push({"microAgent": bad}, 2, False)
    state = (await client.until(2))["microAgent"]
    assert (state["latest_state"], state["applied_version"]) == ("failed", 1)
    assert state["Message_MaxSize"] == 8192 and state["Message_Format"] == "columns"
    keys = [field["key"] for field in state["latest_invalid_fields"]]
    assert sorted(keys) == ["Colour", "Message_MaxSize"]
    # What was refused is still the hub's document: a patch that mends it makes all of it good.
    client.push({"microAgent": {"Message_MaxSize": None}}, 3, False)
    state = (await client.until(3))["microAgent"]
    assert (state["latest_state"], state["applied_version"]) == ("success", 3)
    assert state["Message_Format"] == "objects" and state["Message_MaxSize"] == 65536
    await agent.stop()
    (told,) = client.named("ConfigurationError")
    assert told["Payload"]["rows"][0][0] == "Message_MaxSize"
    assert agent.counters["settings_refused"] == 1


async def test_a_device_identity_looks_at_its_section_only():
    client, agent = _start()
    client.push({"application": {"a": 1}, "Message_Format": "objects"}, 1, True)
    state = (await client.until(1))["microAgent"]
    assert state["latest_invalid_fields"] == [] and state["Message_Format"] == "columns"
    client.push({"application": {"a": 2}}, 2, False)
    client.push({"microAgent": {"Message_Format": "objects"}}, 3, False)
    assert (await client.until(2))["microAgent"]["applied_version"] == 3
    client.push({"microAgent": None}, 4, False)
    assert (await client.until(3))["microAgent"]["Message_Format"] == "columns"
    client.push({"microAgent": 5}, 5, False)
    state = (await client.until(4))["microAgent"]
    assert state["latest_invalid_fields"] == [
        {"key": "microAgent", "reason": "must be an object of settings"}
    ]
    await agent.stop()


async def test_a_module_identity_looks_at_the_root():
    client, agent = _start(module=True, store="module")
    client.push({"Message_Format": "objects"}, 1, True)
    state = await client.until(1)
    assert state["Message_Format"] == "objects" and state["latest_state"] == "success"
    await agent.stop()


async def test_a_document_over_the_limits_is_refused_until_the_next_whole_one():
    client, agent = _start(store="limits")
    client.push({"microAgent": {"Colour": "x" * 5000, "Message_Format": "objects"}}, 1, True)
    assert (await client.until(1))["microAgent"]["latest_state"] == "failed"
    client.push({"microAgent": {"Colour": None}}, 2, False)
    state = (await client.until(2))["microAgent"]
    assert "limits" in state["latest_invalid_fields"][0]["reason"]
    client.push({"microAgent": {"Message_Format": "objects"}}, 2, True)
    assert (await client.until(3))["microAgent"]["Message_Format"] == "objects"
    await agent.stop()


async def test_the_last_good_configuration_and_the_agents_id_outlive_a_restart():
    client, agent = _start(store="kept")
    client.push({"microAgent": {"Message_Format": "objects"}}, 1, True)
    await client.until(1)
    client.push({"microAgent": {"Message_Format": "none"}}, 2, False)
    await client.until(2)
    await agent.stop()
    again = Agent(Client(), False, False, Store("kept"), Outbox(4096))
    lifecycle.begin(again)
    assert again.settings["Message_Format"] == "objects"
    assert again.sender.agent_id == agent.sender.agent_id and len(agent.sender.agent_id) == 36
    await again.stop()


async def test_a_damaged_configuration_file_means_defaults_and_is_counted():
    for text in ('{"Message_For', "[1]", '{"Message_Format": "xml"}', "\xff" * 9000):
        Store("damaged").keep("settings", {})
        with open("damaged/settings.json", "w") as file:
            file.write(text)
        agent = Agent(Client(), False, False, Store("damaged"), Outbox(4096))
        lifecycle.begin(agent)
        assert agent.settings["Message_Format"] == "columns"
        assert agent.store.corrupt == 1, text[:20]
        await agent.stop()


async def test_an_interval_without_flows_sends_nothing():
    client, agent = _start(store="empty")
    await agent.running["NetworkActivity"].collect()
    assert agent.outbox.count == 0
    await agent.stop()


async def test_an_event_waits_for_room_while_the_hub_takes_what_there_is():
    client, agent = _start(store="room", outbox_size=4096)
    text = [events.head("Heartbeat", "Security", "Periodic")]
    text += events.payload("text", [["x" * 3000]], False)
    for _ in range(3):
        await agent.deliver("Heartbeat", text, 60)
    client.connected = False
    waiting = asyncio.create_task(agent.deliver("Heartbeat", text, 60))
    await asyncio.sleep(1)
    client.connected = True  # such as after a token was renewed
    await waiting
    await agent.stop()
    assert len(client.named("Heartbeat")) == 4, client.events
    assert agent.counters["events_refused"] == 0


async def test_an_event_that_finds_no_room_for_long_is_counted():
    client, agent = _start(store="noroom", outbox_size=4096)
    client.connected = False
    text = [events.head("Heartbeat", "Security", "Periodic")]
    text += events.payload("text", [["x" * 3000]], False)
    slept = asyncio.sleep

    async def at_once(_):
        await slept(0)

    asyncio.sleep = at_once
    for _ in range(2):
        await agent.deliver("Heartbeat", text, 60)
    asyncio.sleep = slept
    assert agent.counters["events_refused"] == 1
    await agent.stop(0.1)


async def test_an_event_that_waits_for_room_when_the_agent_stops_is_counted():
    client, agent = _start(store="waits", outbox_size=4096)
    client.connected = False
    text = [events.head("Heartbeat", "Security", "Periodic")]
    text += events.payload("text", [["x" * 3000]], False)
    await agent.deliver("Heartbeat", text, 60)
    agent.scheduler.add("Test", lambda name: agent.deliver("Heartbeat", text, 60), 1, 0, 1)
    await asyncio.sleep(2.5)
    await agent.stop(0.1)
    assert agent.counters["events_refused"] == 1


async def test_flows_without_room_in_the_outbox_stay_in_the_table():
    client, agent = _start(store="full", outbox_size=2400)
    client.connected = False
    network = agent.running["NetworkActivity"]
    for number in range(30):
        _connect(number)
    await network.collect()
    for number in range(30, 70):
        _connect(number)
    _connect(30)
    await network.collect()
    assert agent.counters["collections_deferred"] == 1
    assert tap.table.live == 40
    client.connected = True
    await agent.sender.flush()
    await network.collect()
    await agent.sender.flush()
    rows = [row for event in client.named("ConnectionCreate") for row in event["Payload"]["rows"]]
    assert len(rows) == 70 and sorted(row[4] for row in rows)[-1] == 2
    await agent.stop()


async def test_a_disabled_collector_rests_and_starts_empty():
    client, agent = _start(store="disabled")
    client.push({"microAgent": dict(_QUIET, NetworkActivity_Disabled=True)}, 1, True)
    await client.until(1)
    assert "NetworkActivity" not in agent.running
    _connect()
    client.push({"microAgent": {"NetworkActivity_Disabled": False}}, 2, False)
    await client.until(2)
    assert "NetworkActivity" in agent.running and tap.table.live == 0
    await agent.stop()


async def test_an_agent_that_was_stopped_leaves_an_applications_client_to_the_next():
    client, agent = _start(store="again")
    await agent.stop()
    assert not client.methods and not client.push
    agent = Agent(client, False, False, Store("again"), Outbox(4096))
    lifecycle.begin(agent)
    client.push({"microAgent": dict(_QUIET, Message_Format="objects")}, 1, True)
    await client.until(1)
    assert agent.settings["Message_Format"] == "objects" and len(client.methods) == 5
    await agent.stop()


async def test_stop_is_bounded_when_the_hub_does_not_answer():
    client, agent = _start(store="stuck")

    async def never(length, writer, properties):
        await asyncio.sleep(3600)

    client.send_stream = never
    _connect()
    await agent.stop(0.2)
    assert agent.outbox.count == 1
    await agent.stop(0.2)  # twice is once


async def test_stop_does_not_raise_and_ends_all_the_same():
    client, agent = _start(store="raises")

    async def without_heap(length, writer, properties):
        raise MemoryError("no heap")

    client.send_stream = without_heap
    _connect()
    await agent.stop()
    assert agent.outbox.count == 1 and not agent.running


async def test_stop_sends_what_had_no_room_before_the_rest_was_sent():
    client, agent = _start(store="rest", outbox_size=4096)
    agent.tell("Alert", "text", ["x" * 3300])
    _connect()
    await agent.stop()
    assert client.named("Alert") and client.named("ConnectionCreate")


async def test_flows_that_gave_way_are_told_of():
    client, agent = _start(store="evicted")
    client.push({"microAgent": _DROP_OLDEST}, 1, True)
    await client.until(1)
    for number in range(20):
        _connect(number)
    await agent.running["NetworkActivity"].collect()
    await agent.stop()
    (told,) = client.named("ConfigurationError")
    key, reason = told["Payload"]["rows"][0]
    assert key == "NetworkActivity_CacheSize" and reason.startswith("4 flows"), reason


async def test_flows_that_gave_way_while_nobody_wanted_them_are_not_told_of():
    client, agent = _start(store="unwanted")
    client.push({"microAgent": _DROP_OLDEST}, 1, True)
    await client.until(1)
    for number in range(18):
        _connect(number)
    for version, disabled, flows in ((2, True, 20), (3, False, 17)):
        client.push({"microAgent": {"NetworkActivity_Disabled": disabled}}, version, False)
        await client.until(version)
        for number in range(flows):
            _connect(100 + number)
    await agent.running["NetworkActivity"].collect()
    await agent.stop()
    (told,) = client.named("ConfigurationError")
    assert told["Payload"]["rows"][0][1].startswith("3 flows"), told


async def test_a_configuration_that_meets_an_error_goes_on():
    client, agent = _start(store="error")
    plain = client.report

    async def without_heap(patch):
        client.report = plain
        raise MemoryError("no heap")

    client.report = without_heap
    client.push({"microAgent": dict(_QUIET)}, 1, True)
    for _ in range(50):
        await asyncio.sleep_ms(1)
    assert agent.scheduler.errors == 1 and not agent.tasks[2].done()
    await agent.stop()


async def test_what_runs_for_ever_outlives_a_while_without_any_heap():
    client = Client()
    agent = Agent(client, False, True, Store("heap"), Outbox(16384), "heap/journal")
    lifecycle.begin(agent)
    client.push(dict(_QUIET), 1, True)
    await client.until(1)
    beats = []
    agent.scheduler.every_beat(beats.append)
    micropython.heap_lock()
    try:
        agent.sender.wake()
        agent.outbox.changed.set()
        agent.configuration._changed.set()
        for _ in range(25):
            await asyncio.sleep_ms(100)
    finally:
        micropython.heap_unlock()
    assert len(agent.tasks) == 4 and not any([task.done() for task in agent.tasks])
    seen = len(beats)
    await asyncio.sleep(2)
    assert len(beats) > seen
    agent.tell("Alert", "a", [1])
    agent.sender.wake()
    for _ in range(300):
        if agent.outbox.count == 0 and agent.journal._saved == agent.outbox.revision:
            break
        await asyncio.sleep_ms(10)
    assert client.named("Alert") and agent.journal._saved == agent.outbox.revision
    await agent.stop()


async def test_a_configuration_that_an_error_met_half_way_is_applied_whole():
    client, agent = _start(store="half")
    client.push({"microAgent": {}}, 1, True)
    await client.until(1)
    jobs = sorted([job.name for job in agent.scheduler._jobs])
    plain = agent.scheduler.add

    def without_heap(name, *rest):
        if name == "Baseline":
            agent.scheduler.add = plain
            raise MemoryError("no heap")
        plain(name, *rest)

    agent.scheduler.add = without_heap
    slept = asyncio.sleep
    asyncio.sleep = lambda _: slept(0)
    values = {"CollectorsCore_PriorityIntervals": "1,1,1"}
    client.push({"microAgent": values}, 2, False)
    state = (await client.until(2))["microAgent"]
    asyncio.sleep = slept
    assert (state["latest_state"], state["applied_version"]) == ("success", 2)
    assert sorted([job.name for job in agent.scheduler._jobs]) == jobs
    assert [job.period for job in agent.scheduler._jobs if job.name == "Baseline"] == [60]
    assert agent.store.load("settings") == values
    await agent.stop()


async def test_a_quota_is_lifted_though_it_is_used_up_and_the_outbox_full():
    client, agent = _start(store="quota", outbox_size=4096)
    quota = {"Message_DailyQuota": 1, "NetworkActivity_MessageFrequency": "High"}
    client.push({"microAgent": quota}, 1, True)
    await client.until(1)
    agent.sender.day[:] = (clock.unix() // 86400, 1, 1, 1000)
    agent.tell("Alert", "text", ["x" * 3300])
    _connect()
    client.push({"microAgent": {"Message_DailyQuota": None}}, 2, False)
    assert (await client.until(2))["microAgent"]["applied_version"] == 2
    assert tap.table.live == 1  # they wait in the table
    await agent.stop()
    assert client.named("Alert") and client.named("ConnectionCreate")


class Failing:
    """A collector that cannot start, or hand over, or stop."""

    def start(self):
        raise OSError(5)

    hand_over = stop = start


async def test_a_collector_that_cannot_start_does_not_stop_the_others():
    client, agent = _start(store="failing")
    agent.resident["Process"] = Failing()
    client.push({"microAgent": {"Heartbeat_Disabled": False, "Process_CacheSize": 16}}, 1, True)
    assert (await client.until(1))["microAgent"]["latest_state"] == "success"
    assert agent.scheduler.errors == 1 and "Process" not in agent.running
    assert await agent.collect("Heartbeat") and not await agent.collect("Process")
    await agent.stop()
    assert client.named("Heartbeat")


async def test_what_others_collected_is_handed_over_where_one_cannot():
    client, agent = _start(store="failing")
    agent.running["Process"] = Failing()
    _connect()
    assert not lifecycle.hand_over(agent)
    assert agent.scheduler.errors == 1 and agent.outbox.count == 1
    await agent.stop()
    assert client.named("ConnectionCreate") and agent.scheduler.errors == 4
