# timeout: 120
"""iothub.mqtt: packets byte for byte, and whatever a hub may send, without a network."""

import array
import asyncio
import gc
import os
import random
from time import ticks_add, ticks_diff, ticks_ms

from iothub import HubError, connecting
from iothub.mqtt import PUBLISH, Session

ACCEPTED = b"\x20\x02\x00\x00"
FUZZ = int(os.getenv("VEDETTE_FUZZ_CASES") or 4000)
_HELD = 8192  # bytes of the longest message


class Pipe:
    """Stands in for iothub.link.Link: `feed` is what the hub sends, `sent` what it receives."""

    def __init__(self):
        self.sent = bytearray()
        self.writes = 0
        self.collected = 0
        self.since = None
        self.dropped = False
        self.stuck = False  # the hub does not read
        self._buffer = bytearray()
        self._come = bytearray()
        self._news = asyncio.Event()

    def feed(self, data):
        self._come.extend(data)
        self._news.set()

    def take(self):
        sent = bytes(self.sent)
        self.sent = bytearray()
        return sent

    def read(self, buffer):
        if self.dropped:
            raise HubError("closed", "dropped")
        n = min(len(buffer), len(self._come))
        if not n:
            self._news.clear()
            return None
        buffer[:n] = self._come[:n]
        self._come = self._come[n:]
        return n

    def ready(self):
        return self._news.wait()

    def write(self, data):
        self._buffer.extend(data)
        self.collected = len(self._buffer)

    async def put(self, data):
        self.write(data)

    def push(self):
        if self.dropped:
            raise HubError("closed", "dropped")
        if self.stuck:
            return False
        self.sent.extend(self._buffer)
        self.writes += 1
        self._buffer = bytearray()
        self.collected = 0
        return True

    async def flush(self):
        while not self.push():
            self.since = self.since or ticks_ms()
            await asyncio.sleep_ms(1)
        self.since = None

    def close(self):
        self.dropped = True
        self._buffer = bytearray()
        self.collected = 0
        self._news.set()

    def open_again(self):
        self.__init__()


class Bench:
    """A Session that the hub has accepted, with its reader running."""

    def __init__(self, keepalive=240, max_message=4096):
        self.link = Pipe()
        self.got = []
        self.ups = 0
        self.error = None
        self.stats = {"acked": 0, "retried": 0, "oversized": 0}
        self.mqtt = Session(
            self._tick, self._message, self.stats, keepalive=keepalive, max_message=max_message
        )
        self.mqtt.sock = self.link

    def _tick(self, new):
        self.ups += new
        self.mqtt.up.set()

    def send(self, topic, content, ms=5000, length=None):
        """Begins to send a message of QoS 1; its task."""
        length = len(content) if length is None else length
        limit = ticks_add(ticks_ms(), ms)
        return asyncio.create_task(self.mqtt.send(topic, limit, length, content))

    def _message(self, topic, payload, packet_id):
        self.got.append((topic, None if payload is None else bytes(payload), packet_id))

    async def _read(self):
        try:
            await self.mqtt.read()
        except HubError as e:
            self.error = e

    async def connect(self):
        await self.mqtt.write(0x10, ())  # CONNECT
        self.link.take()
        self.link.feed(ACCEPTED)
        self.reader = asyncio.create_task(self._read())
        await settle()
        assert self.mqtt.up.is_set()
        return self

    async def lose_and_come_back(self):
        self.mqtt.end()
        await settle()
        self.link.open_again()
        await self.connect()


class HeapUse:
    """The heap in use after each 50 cases."""

    def __init__(self):
        self.samples = array.array("I", bytes(4 * (FUZZ // 50)))
        self.count = 0

    def sample(self):
        gc.collect()
        self.samples[self.count] = gc.mem_alloc()
        self.count += 1

    def grows(self):
        """Whether it is more in the last quarter than it was in the second.

        The least of each is taken: the collector often finds a message that nobody holds any more.
        It can find one so for long, and queues keep the greatest length that they ever had: it
        takes more than that and a byte for each case to be growth. In 100,000 cases that is an
        object in thirty cases.
        """
        quarter = self.count // 4
        more = min(self.samples[-quarter:]) - min(self.samples[quarter : 2 * quarter])
        return more > _HELD + FUZZ // 2


async def settle():
    for _ in range(8):
        await asyncio.sleep_ms(0)


class Script(Pipe):
    """A hub that sends what it was given, and closes."""

    def read(self, buffer):
        n = super().read(buffer)
        if n is None:
            raise HubError("end", "of the script")
        return n


async def read_script(data, session=None):
    """Lets a Session read `data`: the HubError that it ended with, None at the end of the data."""
    session = session or Bench()
    session.link = session.mqtt.sock = Script()
    session.link.feed(data)
    try:
        await session.mqtt.read()
    except HubError as e:
        return None if e.code == "end" else e


class Identity:
    certificate = None
    host = "hub"
    port = 8883

    def __init__(self, client_id, user, password):
        self.client_id = client_id
        self.user = user
        self.password = password


async def test_connect_golden():
    async def opened(*_):
        pass

    async def packet(clean, *identity, **options):
        session = Session(None, None, {}, clean_session=clean, **options)
        session.sock = link = Pipe()
        await connecting.connect(session, Identity(*identity), [])
        assert link.writes == 1  # in one piece
        return link.take()

    connecting.find = opened
    connecting.token = lambda identity, lifetime: identity.password
    golden = b"\x10\x20\0\x04MQTT\x04\xc0\x00\xf0\0\x03dev\0\x07hub/dev\0\x06secret"
    assert await packet(False, "dev", "hub/dev", "secret") == golden
    golden = b"\x10\x18\0\x04MQTT\x04\x82\x04\x99\0\x03dev\0\x07hub/dev"
    assert await packet(True, "dev", "hub/dev", None, keepalive=2000) == golden
    golden = b"\x10\x25\0\x04MQTT\x04\x80\x00\xf0\0\x03dev\0\x14h/dev&model-id=a%3A1"
    assert await packet(False, "dev", "h/dev", None, model_id="a:1") == golden
    # 10 bytes of header, and three texts with a length each: 644 = 0x04 | 0x84 & 0x7f << 7
    long = await packet(True, "d" * 128, "u" * 200, "p" * 300)
    assert long[:4] == b"\x10\x84\x05\x00" and len(long) == 3 + 644


async def test_the_hub_refuses():
    session = Bench()
    error = await read_script(b"\x20\x02\x00\x05", session)
    assert error.code == "refused"
    assert not session.mqtt.alive and session.ups == 0


async def test_publish_golden_and_acknowledged_by_id():
    session = await Bench().connect()
    link = session.link
    first = session.send("a/b", b"hi")
    second = session.send("c", b"")
    await settle()
    assert link.take() == b"\x32\x09\0\x03a/b\0\x01hi" + b"\x32\x05\0\x01c\0\x02"
    link.feed(b"\x40\x02\x00\x02" + b"\x40\x02\x12\x34")  # the second, and one never sent
    await settle()
    assert second.done() and not first.done()
    link.feed(b"\x40\x02\x00")
    await settle()
    assert not first.done()
    link.feed(b"\x01")
    await first
    assert session.stats["acked"] == 2


async def test_remaining_length_of_every_size():
    session = await Bench().connect()
    for size, coded in (
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16383, b"\xff\x7f"),
        (16384, b"\x80\x80\x01"),
        (262144, b"\x80\x80\x10"),
    ):
        session.link.take()
        await session.mqtt.write(PUBLISH, ("t",), size - 3, b"x" * (size - 3))
        packet = session.link.take()
        assert packet[: 1 + len(coded)] == b"\x30" + coded, size
        assert len(packet) == 1 + len(coded) + size
        packet = None
        gc.collect()


async def test_subscribe_golden_with_long_filters():
    session = await Bench().connect()
    task = asyncio.create_task(
        connecting.subscribe(session.mqtt, [("a/#", 0), ("b" * 150 + "/#", 1)])
    )
    await settle()
    assert session.link.take() == (
        b"\x82\xa3\x01\0\x01" + b"\0\x03a/#\0" + b"\0\x98" + b"b" * 150 + b"/#\x01"
    )
    session.link.feed(b"\x90\x04\0\x01\0\x01")
    await task
    task = asyncio.create_task(connecting.subscribe(session.mqtt, [("a/#", 0)]))
    await settle()
    session.link.feed(b"\x90\x03\0\x02\x80")
    try:
        await task
    except HubError as e:
        assert e.code == "refused"
    else:
        raise AssertionError("granted")


async def test_ids_wrap_and_skip_those_in_flight():
    session = await Bench().connect()
    mqtt = session.mqtt
    mqtt.pid = 65534
    tasks = [session.send("t", b"%d" % i) for i in range(3)]
    await settle()
    assert session.link.take() == (
        b"\x32\x06\0\x01t\xff\xff0" + b"\x32\x06\0\x01t\0\x011" + b"\x32\x06\0\x01t\0\x022"
    )
    mqtt.pid = 65534
    tasks.append(session.send("t", b"3"))
    await settle()
    assert session.link.take() == b"\x32\x06\0\x01t\0\x033"
    for packet_id in (b"\xff\xff", b"\0\1", b"\0\2", b"\0\3"):
        session.link.feed(b"\x40\x02" + packet_id)
    await asyncio.gather(*tasks)


async def test_the_window_is_bounded_and_all_arrive():
    session = await Bench().connect()
    done = []

    async def send(number):
        await session.send("t", bytes((number,)))
        done.append(number)

    tasks = [asyncio.create_task(send(i)) for i in range(40)]
    arrived = []
    for _ in range(100):
        await settle()
        sent = session.link.take()
        assert len(sent) <= 8 * 8, len(sent)
        for at in range(0, len(sent), 8):
            arrived.append(sent[at + 7])
            session.link.feed(b"\x40\x02" + sent[at + 5 : at + 7])
        if len(done) == 40:
            break
    await asyncio.gather(*tasks)
    assert sorted(arrived) == list(range(40))


async def test_unacknowledged_is_sent_again_with_dup_and_its_id():
    session = await Bench().connect()
    task = session.send("t", b"x")
    await settle()
    assert session.link.take() == b"\x32\x06\0\x01t\0\x01x"
    await session.lose_and_come_back()
    await settle()
    assert session.link.take() == b"\x3a\x06\0\x01t\0\x01x"
    session.link.feed(b"\x40\x02\0\x01")
    await task
    assert session.stats["retried"] == 1
    assert not session.mqtt.replies


async def test_what_was_acknowledged_before_the_connection_ended_is_not_sent_again():
    session = await Bench().connect()
    task = session.send("t", b"x")
    await settle()
    session.mqtt._handle(0x40, b"\0\x01")
    session.mqtt.end()  # before the sender has its turn
    await settle()
    assert task.done() and session.stats == {"acked": 1, "retried": 0, "oversized": 0}


async def test_a_full_heap_at_the_end_of_a_connection_does_not_leave_senders_behind():
    def full():
        raise MemoryError

    session = await Bench().connect()
    task = session.send("t", b"x")
    await settle()
    session.link.push = full
    try:
        session.mqtt.end()
        raise AssertionError("the goodbye was written")
    except MemoryError:
        pass
    await settle()
    assert session.link.dropped and not session.mqtt.replies
    session.link.open_again()
    del session.link.push
    await session.connect()
    await settle()
    assert session.link.take() == b"\x3a\x06\0\x01t\0\x01x"
    session.link.feed(b"\x40\x02\0\x01")
    await task


async def test_send_before_the_connection_waits_for_it():
    session = Bench()
    task = session.send("t", b"x")
    await settle()
    assert not session.link.sent
    await session.connect()
    await settle()
    session.link.feed(b"\x40\x02\0\x01")
    await task


async def test_every_wait_ends():
    session = Bench()
    for expected in ("not connected", "no answer"):
        try:
            task = session.send("t", b"x", ms=20)
            await asyncio.sleep_ms(60)
            session.mqtt.check()
            await task
        except HubError as e:
            assert e.code == "timeout" and expected in str(e), e
        else:
            raise AssertionError("acknowledged")
        if session.ups == 0:
            await session.connect()
    assert not session.mqtt.replies


async def test_stream_writes_one_packet_and_reading_goes_on():
    session = await Bench().connect()
    other = session.send("o", b"x")
    await settle()
    session.link.take()
    go_on = asyncio.Event()

    async def writer(write):
        await write(b"ab")
        await go_on.wait()
        await write(memoryview(b"cde"))

    task = session.send("s", writer, length=5)
    await settle()
    session.link.feed(b"\x40\x02\0\x01" + b"\x32\x07\0\x02in\0\x09!")
    waiting = [
        asyncio.create_task(session.mqtt.write(0x40, (b"\0\x09",))),
        asyncio.create_task(session.mqtt.write(PUBLISH, ("q",))),
    ]
    await settle()
    assert other.done() and session.got == [("in", b"!", 9)]
    go_on.set()
    await settle()
    assert session.link.take() == (
        b"\x32\x0a\0\x01s\0\x02abcde" + b"\x40\x02\0\x09" + b"\x30\x03\0\x01q"
    )
    session.link.feed(b"\x40\x02\0\x02")
    await task
    await asyncio.gather(*waiting)


async def test_a_wrong_stream_ends_the_connection():
    async def short(write):
        await write(b"abc")

    async def long(write):
        await write(b"abcdef")

    async def broken(write):
        await write(b"a")
        raise OSError(5)

    for writer in (short, long, broken):
        session = await Bench().connect()
        try:
            await session.send("s", writer, length=5)
        except HubError as e:
            assert e.code == "writer", e
        else:
            raise AssertionError("acknowledged")
        assert session.link.dropped and not session.mqtt.alive
        await settle()
        assert session.error.code == "closed"
        assert not session.mqtt.replies


async def test_a_stream_is_not_sent_again():
    session = await Bench().connect()

    async def writer(write):
        await write(b"abc")

    task = session.send("s", writer, length=3)
    await settle()
    session.mqtt.end()
    try:
        await task
    except HubError as e:
        assert e.code == "closed"
    else:
        raise AssertionError("acknowledged")


async def test_a_cancelled_sender_does_not_leave_half_a_packet():
    session = await Bench().connect()

    async def writer(write):
        await write(b"abc")
        await asyncio.sleep(10)

    task = session.send("s", writer, length=5)
    await settle()
    task.cancel()
    await settle()
    assert session.link.dropped and not session.mqtt.replies
    # One that waits for its PUBACK leaves the connection alone, and its place to others.
    session = await Bench().connect()
    for _ in range(20):
        task = session.send("t", b"x")
        await settle()
        task.cancel()
        await settle()
    assert not session.link.dropped and not session.mqtt.replies
    last = session.send("t", b"x")
    await settle()
    session.link.feed(b"\x40\x02\0\x15")
    await last


async def test_keep_alive_notices_a_dead_hub_within_one_and_a_half():
    session = await Bench(keepalive=1).connect()
    begin = ticks_ms()
    while True:
        await asyncio.sleep_ms(50)
        try:
            session.mqtt.check()
        except HubError as e:
            assert e.code == "timeout"
            break
        assert ticks_diff(ticks_ms(), begin) < 3000
    assert 1000 < ticks_diff(ticks_ms(), begin) <= 1500
    assert session.link.take() == b"\xc0\0"


async def test_keep_alive_with_a_hub_that_answers():
    session = await Bench(keepalive=1).connect()
    pings = 0
    for _ in range(50):
        await asyncio.sleep_ms(50)
        session.mqtt.check()
        if session.link.take() == b"\xc0\0":
            pings += 1
            session.link.feed(b"\xd0\0")
    assert 2 <= pings <= 4


async def test_a_hub_that_stops_reading_is_noticed():
    session = await Bench().connect()
    session.link.stuck = True
    task = session.send("t", b"x")
    await settle()
    session.mqtt.check()
    session.link.since = ticks_add(ticks_ms(), -21000)
    try:
        session.mqtt.check()
    except HubError as e:
        assert e.code == "timeout"
    else:
        raise AssertionError("not noticed")
    task.cancel()


async def test_messages_in_all_cuts():
    script = (
        b"\x30\x05\0\x01aXY"  # QoS 0
        + b"\x32\x06\0\x01b\x01\x02Z"  # QoS 1
        + b"\x31\x03\0\x01c"  # retained, empty
        + b"\xd0\x00"
        + b"\x30\xac\x02\0\x01d"
        + b"L" * 297
    )
    whole = [("a", b"XY", 0), ("b", b"Z", 258), ("c", b"", 0), ("d", b"L" * 297, 0)]
    for cut in range(1, len(script)):
        session = Bench()
        assert await read_script(script[:cut], session) is None
        assert session.got == whole[: len(session.got)], cut
        session = Bench()
        reader = asyncio.create_task(session._read())
        session.link.feed(script[:cut])
        await settle()
        session.link.feed(script[cut:])
        await settle()
        reader.cancel()
        assert session.got == whole, cut


async def test_large_messages_are_read_or_skipped():
    session = Bench(max_message=3000)

    def message(size, topic=b"t"):
        size += 2 + len(topic)
        return bytes((0x30, size & 127 | 128, size >> 7)) + b"\0\x01" + topic + b"v" * (size - 3)

    script = message(1017) + message(1019) + message(2997) + message(2998) + message(9000)
    script += b"\x32\x80\x64\0\x01q\0\x07" + b"w" * (12800 - 5) + message(1, b"e")
    long = "l" * 300  # a topic that does not fit into the buffer
    script += b"\x32\x80\x64\x01\x2c" + long.encode() + b"\0\x08" + b"w" * (12800 - 304)
    script += message(1, b"f")
    assert await read_script(script, session) is None
    sizes = [(t, None if p is None else len(p), i) for t, p, i in session.got]
    assert sizes == [
        ("t", 1017, 0),
        ("t", 1019, 0),
        ("t", 2997, 0),
        ("t", None, 0),
        ("t", None, 0),
        ("q", None, 7),
        ("e", 1, 0),
        (long, None, 8),
        ("f", 1, 0),
    ], sizes
    assert session.stats["oversized"] == 4


async def test_a_flood_does_not_hold_the_loop():
    session = await Bench().connect()
    turns = 0

    async def other():
        nonlocal turns
        while len(session.got) < 400:
            turns += 1
            await asyncio.sleep_ms(0)

    session.link.feed((b"\x30\x62\0\x01t" + b"v" * 95) * 400)
    await other()
    assert turns > 100, turns


async def test_malformed_packets_end_the_session():
    for packet in (
        b"\x30\xff\xff\xff\xff\x01",  # length of five bytes
        b"\x30\x02\0\x01",  # shorter than its topic
        b"\x32\x04\0\x01t\0",  # no room for the packet id
        b"\x34\x06\0\x01t\0\1x",  # QoS 2
        b"\x30\x04\0\x02\xff\xfe",  # a topic that is not UTF-8
        b"\x40\x01\0",
        b"\x90\x02\0\1",
        b"\x50\x02\0\1",
        b"\x00\x00",
        b"\xd0\x01x",
        b"\x20\x00",
    ):
        error = await read_script(packet)
        assert error and error.code == "protocol", packet


async def test_fuzz():
    """Random, mutated and cut packets: handled, or a protocol error; never more heap."""
    rng = random
    rng.seed(int(os.getenv("VEDETTE_FUZZ_SEED") or 6))
    good = [
        ACCEPTED,
        b"\x40\x02\0\x01",
        b"\x90\x03\0\x01\0",
        b"\xd0\0",
        b"\x30\x05\0\x01aXY",
        b"\x32\x06\0\x01b\x01\x02Z",
        b"\x30\x80\x20\0\x03big" + b"B" * 4091,
    ]
    errors = 0
    session = Bench(max_message=2048)
    used = HeapUse()
    for case in range(FUZZ):
        if case % 50 == 0:
            data = session.link._come = None
            used.sample()
        data = bytearray()
        for _ in range(1 + rng.randrange(3)):
            data.extend(rng.choice(good))
        kind = rng.randrange(4)
        if kind == 0:
            for _ in range(1 + rng.randrange(4)):
                data[rng.randrange(min(len(data), 40))] = rng.randrange(256)
        elif kind == 1:
            data = data[: rng.randrange(len(data))]
        elif kind == 2:
            data = bytearray(os.urandom(1 + rng.randrange(60)))
        session.mqtt.end()
        session.got.clear()
        error = await read_script(data, session)
        if error:
            assert error.code in ("protocol", "refused"), error
            errors += 1
    assert FUZZ // 10 < errors < FUZZ, errors
    assert not used.grows(), used.samples
