"""The flow table's way into the outbox, when the heap is full at the worst moment."""

import flowtable
import micropython
from vedette import log, tap

tap.install()

from iothub import clock  # noqa: E402
from vedette.collectors import network_activity  # noqa: E402
from vedette.outbox import Outbox  # noqa: E402
from vedette.settings import Settings  # noqa: E402

log.level = 0


class Agent:
    """As much of the agent as the collector asks for."""

    objects = False

    def __init__(self):
        self.settings = Settings({})
        self.outbox = Outbox(8192)
        self.since = {"NetworkActivity": clock.uptime() - 60}
        self.counters = {"events_collected": 0, "collections_deferred": 0}


def _collector():
    collector = network_activity.Collector(Agent())
    tap.table.clear()
    for number in range(20):
        remote = bytes((10, 0, 0, number))
        token = tap.table.open(6, 1, bytes((10, 0, 0, 7)), 40000 + number, remote, 443)
        tap.table.count_out(token, 100)
    return collector


def _flows(outbox):
    return [outbox.content(offset)[outbox.header(offset)[5] + 2] for offset in outbox.entries()]


def test_once_the_table_is_empty_the_event_needs_no_heap():
    collector = _collector()
    agent = collector.agent
    plain = tap.table.drain

    def drain(view):
        count = plain(view)
        micropython.heap_lock()
        return count

    tap.table.drain = drain
    try:
        done = collector.hand_over()
    finally:
        micropython.heap_unlock()
        tap.table.drain = plain
    assert done and tap.table.live == 0
    assert _flows(agent.outbox) == [20] and agent.counters["events_collected"] == 1
    assert clock.uptime() - agent.since["NetworkActivity"] <= 1


def test_without_heap_before_that_the_table_stays_as_it_is():
    collector = _collector()
    agent = collector.agent
    since = agent.since["NetworkActivity"]
    plain = agent.outbox.reserve

    def reserve(size, *fields):
        view = plain(size, *fields)
        micropython.heap_lock()
        return view

    agent.outbox.reserve = reserve
    try:
        collector.hand_over()
        raise AssertionError("this needs heap")
    except MemoryError:
        pass
    finally:
        micropython.heap_unlock()
    assert tap.table.live == 20 and agent.outbox.count == 0
    assert agent.since["NetworkActivity"] == since
    agent.outbox.reserve = plain
    assert collector.hand_over() and _flows(agent.outbox) == [20]


def test_what_the_outbox_never_holds_at_once_goes_in_several_events():
    for size in (8192, 2047):
        _goes_in_several_events(Outbox(size))


def _goes_in_several_events(outbox):
    collector = network_activity.Collector(Agent())
    collector.agent.outbox = outbox
    tap.table.clear()
    expected = []
    for number in range(256):
        remote = bytes(15) + b"\x01" + bytes((number,)) + bytes(15)
        token = tap.table.open(6, 1, bytes((10, 0, 0, 7)), 40000 + number, remote[1:17], 443)
        tap.table.count_in(token, 1 << 31)
        tap.table.count_out(token, (1 << 31) + number)
        expected.append((1 << 31) + number)
    found = []
    while True:
        done = collector.hand_over()
        (offset,) = outbox.entries()
        _, _, parts, _, rows, text, _, _, _ = outbox.header(offset)
        snapshot = outbox.content(offset)[text + 2 :]
        flows = list(flowtable.unpack(snapshot))
        assert (parts - 1) * rows < len(flows) <= parts * rows
        found += [flow[8] for flow in flows]
        outbox.forget(offset)
        outbox.expire(1000)
        if done:
            break
        assert tap.table.live == 256 - len(found)
    assert len(found) > len(flows)
    assert sorted(found) == expected
