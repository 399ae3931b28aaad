"""From the outbox to the hub: packing, acknowledgement, retries, quota, expiry."""

import asyncio
import json

from iothub import HubError, clock
from vedette import events, messages, sending
from vedette.outbox import TEXT, Outbox
from vedette.sender import Sender
from vedette.settings import Settings

clock._seconds += 86400  # the device has been up for a day

AGENT = "8b0e6f0e-6c1f-4a53-9f5e-1d2c3b4a5968"


class Client:
    """Stands in for the hub client; fails as many times as `failures` says, half-way."""

    def __init__(self):
        self.connected = True
        self.failures = 0
        self.messages = []
        self.properties = []

    async def send_stream(self, length, writer, properties):
        body = bytearray()

        async def write(chunk):
            if self.failures and len(body) >= length // 3:
                self.failures -= 1
                raise HubError("closed", "the connection was lost")
            body.extend(chunk)

        await writer(write)
        assert len(body) == length
        self.messages.append(json.loads(body))
        self.properties.append(properties)

    def events(self):
        return [event for message in self.messages for event in message["Events"]]


def _make(values=None, size=60000):
    client, outbox = Client(), Outbox(size)
    settings = Settings({})
    settings.apply(values or {})
    return client, outbox, Sender(client, outbox, settings, AGENT)


def _add(outbox, name, priority=1, padding=0, when=None):
    pieces = [events.head(name, "Security", "Periodic")]
    pieces += events.payload("text", [["x" * padding]], False)
    pieces = [piece.encode() for piece in pieces]
    outbox.add(pieces, priority, clock.uptime() if when is None else when, 60)


def _names(client):
    return [event["Name"] for event in client.events()]


async def _refused(sender):
    try:
        await sender.flush()
    except HubError:
        return True
    return False


async def test_all_that_waits_is_one_message_high_first():
    client, outbox, sender = _make()
    for name, priority in (("Low", 2), ("Medium", 1), ("High", 0)):
        _add(outbox, name, priority)
    await sender.flush()
    assert len(client.messages) == 1 and _names(client) == ["High", "Medium", "Low"]
    assert outbox.count == 0
    assert (sender.sent, sender.acknowledged, sender.events_sent) == (1, 1, 3)
    message = client.messages[0]
    assert message["AgentId"] == AGENT and message["MessageSchemaVersion"] == "1.0"
    properties = client.properties[0]
    assert properties["$.mid"] == message["Events"][0]["Id"]
    assert properties["$.ct"] == "application/json" and properties["$.ce"] == "utf-8"
    assert properties["$.ifid"] == "urn:azureiot:Security:SecurityAgent:1"


async def test_messages_keep_to_the_size_that_is_set():
    client, outbox, sender = _make({"Message_MaxSize": 4096})
    for number in range(9):
        _add(outbox, "E%d" % number, padding=900)
    await sender.flush()
    assert [len(message["Events"]) for message in client.messages] == [3, 3, 3]
    assert _names(client) == ["E%d" % number for number in range(9)]
    # An event from a time when more was allowed goes alone.
    _add(outbox, "Long", padding=6000)
    _add(outbox, "Short")
    await sender.flush()
    assert [len(message["Events"]) for message in client.messages[3:]] == [1, 1]


async def test_an_event_that_does_not_fit_is_not_rendered_to_its_end():
    client, outbox, sender = _make({"Message_MaxSize": 4096})
    for name, padding in (("A", 3500), ("B", 3000), ("C", 3000)):
        _add(outbox, name, padding=padding)
    plain = messages.event
    rendered = {}

    def event(outbox, offset, part):
        rendered[offset] = 0
        for piece in plain(outbox, offset, part):
            for at in range(0, len(piece), 10):
                rendered[offset] += 1
                yield piece[at : at + 10]

    messages.event = event
    try:
        chosen, _ = await sending.pack(sender, 262144)
    finally:
        messages.event = plain
    first, second, third = outbox.entries()
    assert chosen == [(first, 0)]
    assert rendered[second] < 50 and rendered[third] < 50, rendered


async def test_what_is_not_acknowledged_is_sent_again_the_same():
    client, outbox, sender = _make()
    for name in ("A", "B"):
        _add(outbox, name, padding=3000)
    client.failures = 2
    assert await _refused(sender) and await _refused(sender)
    assert outbox.count == 2 and not client.messages
    (first, _) = outbox.entries()
    identity = events.uuid(outbox.header(first)[-1])
    await sender.flush()
    assert _names(client) == ["A", "B"] and outbox.count == 0
    assert client.events()[0]["Id"] == identity
    assert (sender.sent, sender.acknowledged, sender.retried) == (3, 1, 2)


async def test_the_parts_of_an_event_are_no_retries_of_each_other():
    client, outbox, sender = _make({"Message_MaxSize": 8192})
    text = events.head("A", "Security", "Periodic")
    text = (text + "".join(events.payload("text", [["x" * 3000]], False))).encode()
    view = outbox.reserve(len(text), TEXT, 1, 0, 3, 0, 0, len(text), 0, 60, bytes(16))
    view[: len(text)] = text
    outbox.commit(len(text))
    await sender.flush()
    assert _names(client) == ["A"] * 3 and len(client.messages) == 2
    assert (sender.sent, sender.acknowledged, sender.retried) == (2, 2, 0)


async def test_nothing_is_tried_without_a_connection():
    client, outbox, sender = _make()
    client.connected = False
    _add(outbox, "A")
    await sender.flush()
    assert outbox.count == 1 and sender.sent == 0


async def test_an_event_that_comes_while_one_is_sent_is_not_lost():
    client, outbox, sender = _make()
    _add(outbox, "A", padding=3000)
    plain = client.send_stream

    async def slow(length, writer, properties):
        _add(outbox, "B")
        client.send_stream = plain
        await plain(length, writer, properties)

    client.send_stream = slow
    await sender.flush()
    assert _names(client) == ["A", "B"] and outbox.count == 0


async def test_an_event_that_comes_while_they_are_packed_has_its_time():
    client, outbox, sender = _make()
    _add(outbox, "A", padding=3000)
    plain = messages.event

    def event(outbox, offset, part):
        yield from plain(outbox, offset, part)
        messages.event = plain
        _add(outbox, "B", 2)

    messages.event = event
    await sender.flush()
    assert _names(client) == ["A", "B"]
    for told in client.events():
        assert told["TimestampUTC"] >= clock.utc(clock.unix() - 5), told["TimestampUTC"]


async def test_the_days_quota_counts_metered_units_and_lets_high_go_first():
    client, outbox, sender = _make({"Message_DailyQuota": 3, "Message_MaxSize": 4096})
    for name, priority in (("Low", 2), ("Medium", 1), ("High 1", 0), ("High 2", 0), ("Small", 2)):
        _add(outbox, name, priority, 100 if name == "Small" else 3200)
    await sender.flush()
    assert _names(client) == ["High 1", "Small", "High 2", "Medium"], _names(client)
    assert sender.day[1:3] == [3, 3]
    assert outbox.count == 1 and sender.quota_waits == 1
    sender.day[0] -= 1  # the next day
    await sender.flush()
    assert _names(client)[-1] == "Low" and outbox.count == 0
    assert sender.day[2] == 1


async def test_what_is_too_old_is_dropped_and_counted():
    client, outbox, sender = _make({"IothubModule_MessageTimeout": 1})
    _add(outbox, "Old", when=clock.uptime() - 61)
    _add(outbox, "Young", when=clock.uptime() - 30)
    await sender.flush()
    assert _names(client) == ["Young"] and outbox.expired == 1


async def test_a_clock_that_is_wrong_until_there_is_a_connection_makes_nothing_too_old():
    client, outbox, sender = _make()
    _add(outbox, "A")
    outbox.stamp()  # before a reset
    unix = clock.unix
    client.connected = False
    try:
        clock.unix = lambda: unix() + 86400 * 365
        await sender.flush()
        assert outbox.count == 1 and outbox.expired == 0
        clock._seconds += 86400 * 2  # now it is too old by any clock
        await sender.flush()
        assert outbox.count == 0 and outbox.expired == 1
    finally:
        clock.unix = unix
        clock._seconds -= 86400 * 2


async def test_the_time_told_is_that_of_the_collection():
    client, outbox, sender = _make()
    _add(outbox, "A", when=clock.uptime() - 3600)
    before = clock.unix()
    await sender.flush()
    told = client.events()[0]["TimestampUTC"]
    assert clock.utc(before - 3601) <= told <= clock.utc(clock.unix() - 3599), told


async def test_the_task_sends_when_woken_and_tries_again_by_itself():
    client, outbox, sender = _make()
    task = asyncio.create_task(sender.run())
    client.failures = 1
    _add(outbox, "A", padding=3000)
    sender.wake()
    for _ in range(100):
        await asyncio.sleep_ms(10)
        if sender.sent:
            break
    assert outbox.count == 1
    sender.wake()  # as a new connection does; by itself it waits for 5 s
    for _ in range(100):
        await asyncio.sleep_ms(10)
        if client.messages:
            break
    assert _names(client) == ["A"]
    task.cancel()


async def test_an_error_that_nobody_expects_is_counted_and_nothing_is_lost():
    client, outbox, sender = _make()
    _add(outbox, "A")
    plain = client.send_stream

    async def without_heap(length, writer, properties):
        client.send_stream = plain
        raise MemoryError("no heap")

    client.send_stream = without_heap
    task = asyncio.create_task(sender.run())
    for count in (1, 1):
        sender.wake()
        for _ in range(20):
            await asyncio.sleep_ms(0)
        assert sender.errors == count
    task.cancel()
    assert _names(client) == ["A"] and outbox.count == 0
