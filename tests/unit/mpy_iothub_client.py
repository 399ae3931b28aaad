# timeout: 60
"""iothub.client and twin: what the application sees, on a hub that is played by the test."""

import asyncio
import json
import os
import random
import sys

from iothub import Credentials, HubClient, HubError, clock, errors
from iothub.connecting import subscribe
from mpy_iothub_mqtt import FUZZ, HeapUse, Pipe, settle

TEXT = "HostName=hub.test;DeviceId=dev;SharedAccessKey=c2VjcmV0"
GET = "$iothub/twin/GET/?$rid="
REPORT = "$iothub/twin/PATCH/properties/reported/?$rid="


class Hub(Pipe):
    """A link with a hub behind it that answers at once; `behaviour` changes that."""

    def __init__(self):
        super().__init__()
        self.opened = 0
        self.error = None
        self.twin = {"desired": {"a": 1, "$version": 4}, "reported": {"$version": 1}}
        self.status = None  # of twin requests, when they fail
        self.published = []
        self.acknowledged = []  # packet ids of messages to the device

    async def open(self):
        self.opened += 1
        if self.error:
            raise self.error
        self.dropped = False

    def push(self):
        done = super().push()
        packets = self.take()
        while packets:
            size, at, shift = 0, 1, 0
            while True:
                size |= (packets[at] & 127) << shift
                shift += 7
                at += 1
                if packets[at - 1] < 128:
                    break
            self._answer(packets[0], packets[at : at + size])
            packets = packets[at + size :]
        return done

    def _answer(self, first, body):
        kind = first >> 4
        if kind == 1:
            self.feed(b"\x20\x02\0\0")
        elif kind == 4:
            self.acknowledged.append(body[1])
        elif kind == 8:
            self.feed(b"\x90\x03" + body[:2] + b"\0")
        elif kind == 12:
            self.feed(b"\xd0\0")
        elif kind == 3:
            size = body[0] << 8 | body[1]
            topic = body[2 : 2 + size].decode()
            if first & 6:
                self.feed(b"\x40\x02" + body[2 + size : 4 + size])
                self.published.append((topic, body[4 + size :]))
            elif topic.startswith(GET):
                self._answer_twin(topic[len(GET) :], 200, json.dumps(self.twin))
            elif topic.startswith(REPORT):
                self.published.append((topic, body[2 + size :]))
                self._answer_twin(topic[len(REPORT) :], 204, "")
            elif topic.startswith("$iothub/methods/res/"):
                self.published.append((topic, body[2 + size :]))

    def _answer_twin(self, rid, status, text):
        status = self.status or status
        suffix = "&$version=7" if status == 204 else ""
        self.message("$iothub/twin/res/%d/?$rid=%s%s" % (status, rid, suffix), text)

    def message(self, topic, text, qos=0):
        body = len(topic).to_bytes(2, "big") + topic.encode() + b"\0\x07" * qos + text.encode()
        size = len(body)
        self.feed(bytes((0x30 | qos << 1, size & 127 | 128, size >> 7 & 127 | 128, size >> 14)))
        self.feed(body)

    def patch(self, version, desired):
        desired["$version"] = version
        topic = "$iothub/twin/PATCH/properties/desired/?$version=%d" % version
        self.message(topic, json.dumps(desired))


class Connecting:
    """Stands in for iothub.connecting."""

    @staticmethod
    async def connect(session, identity, roots):
        await session.sock.open()
        await session.write(0x10, (identity.client_id,))

    subscribe = staticmethod(subscribe)


sys.modules["iothub.connecting"] = Connecting


class Bench:
    """A client on a played hub, and all that its callbacks were told."""

    def __init__(self, **options):
        self.client = HubClient(Credentials.parse(TEXT), [], **options)
        self.hub = self.client.session.sock = Hub()
        self.ups = []
        self.desired = []
        self.client.on_connection(lambda up, reason: self.ups.append((up, reason and reason.code)))
        self.client.on_desired(lambda *args: self.desired.append(args))

    async def __aenter__(self):
        self.client.start()
        await self.client.wait_connected(2)
        await settle()
        return self

    async def __aexit__(self, *_):
        await self.client.stop()


async def refusal(coroutine):
    try:
        await coroutine
    except HubError as e:
        return e
    raise AssertionError("no HubError")


async def test_telemetry_topic_and_body():
    async with Bench() as bench:
        await bench.client.send(b"hi", {"$.ct": "application/json"})
        await bench.client.send(b"")
        assert bench.hub.published == [
            ("devices/dev/messages/events/$.ct=application%2Fjson", b"hi"),
            ("devices/dev/messages/events/", b""),
        ]
        error = await refusal(bench.client.send(bytes(262145)))
        assert error.code == "too-large"
        assert bench.client.connected and bench.client.last_error is None


async def test_twin_in_full_after_each_connect_and_then_its_changes():
    async with Bench() as bench:
        assert bench.desired == [({"a": 1}, 4, True)]
        bench.hub.patch(5, {"a": None, "b": 2})
        await settle()
        assert bench.desired[1:] == [({"a": None, "b": 2}, 5, False)]
        second = []
        bench.client.on_desired(lambda *args: second.append(args))
        await asyncio.sleep_ms(600)  # the client looks twice a second
        assert second == [({"a": 1}, 4, True)]
        assert await bench.client.report({"x": 1}) == 7
        assert await bench.client.twin() == bench.hub.twin
        topic, body = bench.hub.published[-1]
        assert topic.startswith(REPORT) and json.loads(body) == {"x": 1}


async def test_twin_errors_have_codes():
    async with Bench() as bench:
        for status, code in (
            (400, "rejected"),
            (413, "too-large"),
            (429, "throttled"),
            (503, "server"),
        ):
            bench.hub.status = status
            assert (await refusal(bench.client.report({}))).code == code
        error = await refusal(bench.client.report({"x": "y" * 32768}))
        assert error.code == "too-large"
    assert (await refusal(bench.client.report({}))).code == "closed"


async def test_a_callback_that_is_forgotten_is_not_called_and_the_others_are():
    async with Bench() as bench:
        client = bench.client
        heard = []

        def hear(*args):
            heard.append(args)

        client.on_connection(hear)
        client.on_desired(hear)
        client.on_message(hear)
        client.on_method("hear", hear)
        client.on_method("echo", lambda payload: (200, payload))
        client.forget(hear)
        bench.hub.patch(5, {"b": 2})
        bench.hub.message("devices/dev/messages/devicebound/", "news", 1)
        for number, name in enumerate(("hear", "echo")):
            bench.hub.message("$iothub/methods/POST/%s/?$rid=%d" % (name, number), "1")
        await asyncio.sleep_ms(600)  # the client looks twice a second
        assert bench.desired[-1] == ({"a": 1}, 4, True) and bench.hub.acknowledged
        assert sorted([topic for topic, _ in bench.hub.published]) == [
            "$iothub/methods/res/200/?$rid=1",
            "$iothub/methods/res/404/?$rid=0",
        ]
        client.on_method("hear", hear)  # the name is free again
    assert bench.ups[-1] == (False, "stopped") and not heard


async def test_a_callback_that_raises_is_counted():
    bench = Bench()
    bench.client.on_desired(lambda: 1)
    bench.client.on_connection(lambda up, reason: 1 / 0)
    async with bench:
        assert bench.client.stats["callback_errors"] == 2
        await bench.client.send(b"goes on")


async def test_without_a_clock_it_says_so_and_connects_once_it_is_set():
    real = clock.unix
    clock.unix = lambda: 4
    bench = Bench()
    try:
        bench.client.start()
        error = await refusal(bench.client.wait_connected(0.2))
        assert error.code == "clock-not-set" and "1970-01-01T00:00:04Z" in str(error)
        assert bench.hub.opened == 0
        clock.unix = real
        await bench.client.wait_connected(2)
    finally:
        clock.unix = real
        await bench.client.stop()


async def test_messages_to_the_device_are_acknowledged_on_their_own_connection():
    topic = "devices/dev/messages/devicebound/a=b"
    bench = Bench()
    got = []
    bench.client.on_message(lambda body, properties: got.append((bytes(body), properties)))
    async with bench:
        bench.hub.message(topic, "1", qos=1)
        await settle()
        assert bench.hub.acknowledged == [7] and got == [(b"1", {"a": "b"})]
        bench.hub.stuck = True
        bench.hub.message(topic, "2", qos=1)
        await settle()
        bench.hub.close()
        bench.hub.stuck = False
        while bench.client.stats["connects"] < 2:
            await asyncio.sleep_ms(50)
        await settle()
        assert bench.hub.acknowledged == [7] and len(got) == 2
        bench.hub.message(topic, "2", qos=1)
        await settle()
        assert bench.hub.acknowledged == [7, 7] and len(got) == 3


async def test_a_method_whose_answer_cannot_be_written_has_failed():
    endless = []
    endless.append(endless)
    async with Bench() as bench:
        bench.client.on_method("endless", lambda payload: (200, endless))
        bench.client.on_method("echo", lambda payload: (200, payload))
        for rid, name in enumerate(("endless", "echo", "none")):
            bench.hub.message("$iothub/methods/POST/%s/?$rid=%d" % (name, rid), '"ü"')
        await asyncio.sleep_ms(50)
        assert sorted(bench.hub.published) == [
            ("$iothub/methods/res/200/?$rid=1", '"ü"'.encode()),
            ("$iothub/methods/res/404/?$rid=2", b'{"error": "no such method"}'),
            ("$iothub/methods/res/500/?$rid=0", b'{"error": "the method failed"}'),
        ], bench.hub.published
        assert bench.client.stats["callback_errors"] == 1


async def test_back_off_doubles_is_capped_and_jittered():
    bench = Bench()
    for failures in range(12):
        delays = []
        for _ in range(200):
            bench.client._failures = failures
            delays.append(bench.client._lost(HubError("closed")))
        top = min(1000 << failures, 128000)
        assert top // 2 <= min(delays) < top * 6 // 10
        assert top * 9 // 10 < max(delays) <= top


async def test_only_a_connection_that_held_or_a_clock_that_was_never_set_ends_the_back_off():
    bench = Bench()
    for _ in range(12):
        delay = bench.client._lost(HubError("clock-not-set", "the certificate begins later"))
    assert delay >= 64000
    real, clock.unix = clock.unix, lambda: 4
    try:
        assert bench.client._lost(HubError("clock-not-set")) <= 1000
    finally:
        clock.unix = real


async def test_start_twice_stop_twice_and_again():
    bench = Bench()
    assert bench.client.start() is bench.client.start()
    await bench.client.wait_connected(2)
    assert bench.hub.opened == 1
    await bench.client.stop()
    await bench.client.stop()
    assert not bench.client.connected and bench.ups == [(True, None), (False, "stopped")]
    bench.client.start()
    await bench.client.wait_connected(2)
    await bench.client.stop()
    assert bench.hub.opened == 2


async def test_a_failed_connect_is_tried_again():
    bench = Bench()
    bench.hub.error = HubError("unreachable", "for a test")
    bench.client.start()
    error = await refusal(bench.client.wait_connected(0.1))
    assert error.code in ("timeout", "unreachable")
    sending = asyncio.create_task(bench.client.send(b"waits"))
    await asyncio.sleep_ms(600)
    assert bench.client.last_error.code == "unreachable"
    bench.hub.error = None
    await sending
    assert bench.client.stats["failures"] >= 1
    await bench.client.stop()


def test_an_error_can_be_shown_when_the_heap_is_full():
    def full(*_):
        raise MemoryError

    real, errors.cold = errors.cold, full
    try:
        assert str(HubError("memory", "x")) == "memory"
    finally:
        errors.cold = real
    assert str(HubError("memory")).startswith("memory: the heap is full")


async def test_what_only_a_connect_needs_leaves_the_heap():
    for name in ("decoding", "devicebound", "keys", "methods", "reasons", "twin"):
        sys.modules.pop("iothub." + name, None)
    sys.modules["iothub.connecting"] = Connecting
    async with Bench() as bench:
        assert bench.desired and await bench.client.report({"x": 1})
        assert str(HubError("dns", "h")) == "dns: the name is unknown (h)"
        loaded = [name[7:] for name in sys.modules if name.startswith("iothub.")]
        assert sorted(loaded) == sorted(
            ("client", "clock", "connecting", "encoding", "errors", "link", "mqtt")
        ), loaded


async def test_fuzzed_twins_methods_and_messages():
    """Whatever comes as a message is handled or counted: no crash, no reconnect, no heap."""
    rng = random
    rng.seed(int(os.getenv("VEDETTE_FUZZ_SEED") or 7))
    topics = (
        "$iothub/twin/PATCH/properties/desired/?$version=5",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/res/204/?$rid=2&$version=3",
        "$iothub/methods/POST/echo/?$rid=1f",
        "devices/dev/messages/devicebound/%24.mid=1&a=b",
    )
    payloads = ('{"a":{"b":[1,2.5,null,"x"]},"$version":6}', "[1]", "null", '"s"', "", '{"a":')
    async with Bench() as bench:
        bench.client.on_method("echo", lambda payload: (200, payload))
        bench.client.on_message(lambda body, properties: len(body))
        used = HeapUse()
        for case in range(FUZZ):
            topic, text = (
                bytearray(rng.choice(topics).encode()),
                bytearray(rng.choice(payloads).encode()),
            )
            for part in (topic, text):
                for _ in range(rng.randrange(3)):
                    if part:
                        part[rng.randrange(len(part))] = 32 + rng.randrange(95)
            kind = rng.randrange(8)
            if kind < 2:
                text = text[: rng.randrange(len(text) + 1)]
            elif kind == 2:
                text = text + b" " * rng.randrange(12000)
            bench.hub.message(topic.decode(), text.decode(), kind & 1)
            if case % 50 == 49:
                await settle()
                try:
                    await bench.client.report({"case": case})
                except HubError:
                    pass  # what came for another request was taken for its answer
                for topic in topics:  # else tasks that wait still hold a long message, if any did
                    for qos in (0, 1):
                        bench.hub.message(topic, "{}", qos)
                        await settle()
                bench.desired.clear()
                bench.hub.published.clear()
                bench.hub.acknowledged.clear()
                used.sample()
        assert not used.grows(), used.samples
        assert bench.client.connected and bench.client.stats["connects"] == 1
        assert bench.client.stats["malformed"] > FUZZ // 10
        assert bench.client.stats["oversized"] > FUZZ // 50
