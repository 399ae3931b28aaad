"""Network time from servers that are right, wrong, silent, or somebody else."""

import warp

warp.faster(4)

import asyncio  # noqa: E402 - after the clock
import socket  # noqa: E402
import time  # noqa: E402

from iothub import clock  # noqa: E402
from vedette import log, ports, sntp  # noqa: E402

log.level = 0
FROM_1900 = 2208988800
DAY, RETRY = 86400, 60


class Port:
    """Stands in for the board: keeps what the clock was set to."""

    set = None

    @classmethod
    def set_clock(cls, seconds):
        cls.set = seconds


ports.load = lambda: Port


class BoardModule:
    """The module `socket` of STM32 and RP2: it resolves for streams only, and warns of hints."""

    SOCK_DGRAM = socket.SOCK_DGRAM

    @staticmethod
    def getaddrinfo(host, port, *hints):
        assert not hints
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        assert found[0][1] == socket.SOCK_STREAM
        return found


sntp.socket = BoardModule


class Server:
    """Answers each request with the packets that `answers(request, now)` makes."""

    def __init__(self, answers):
        self.answers = answers
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        for self.port in range(24000, 32000):
            try:
                address = socket.getaddrinfo("127.0.0.1", self.port)[0][-1]
                self.socket.bind(address)
                break
            except OSError:
                pass
        self.task = asyncio.create_task(self.run())

    async def run(self):
        while True:
            await asyncio.sleep_ms(2)
            try:
                request, peer = self.socket.recvfrom(100)
            except OSError:
                continue
            for packet in self.answers(request, time.time()):
                self.socket.sendto(packet, peer)

    def name(self):
        return "127.0.0.1:%d" % self.port

    def close(self):
        self.task.cancel()
        self.socket.close()


def packet(request, seconds, fraction=0, leap=0, mode=4, stratum=2, nonce=None):
    packed = bytearray(48)
    packed[0] = leap << 6 | 4 << 3 | mode
    packed[1] = stratum
    packed[24:32] = nonce or request[40:48]
    packed[40:44] = ((int(seconds) + FROM_1900) & 0xFFFFFFFF).to_bytes(4, "big")
    packed[44:48] = fraction.to_bytes(4, "big")
    return packed


def right(request, now):
    assert len(request) == 48 and request[0] == 0x23
    return [packet(request, now)]


def shifted(off):
    """A server whose clock is `off` seconds ahead."""
    return lambda request, now: [packet(request, now + off)]


def fixed(seconds, fraction=0):
    """A server whose clock stands still."""
    return lambda request, now: [packet(request, seconds, fraction)]


async def _ask(first, second):
    servers = [Server(first), Server(second)]
    Port.set = None
    held = asyncio.create_task(_lateness())
    try:
        wait = await sntp.synchronise([server.name() for server in servers])
    finally:
        for server in servers:
            server.close()
    held.cancel()
    return wait, Port.set


async def _lateness():
    while True:
        began = time.ticks_ms()
        await asyncio.sleep_ms(5)
        assert time.ticks_diff(time.ticks_ms(), began) < 2000, "the loop was held"


async def test_two_servers_that_agree_set_the_clock():
    for off in (1, 5000, 300_000_000):  # also after 2036, when NTP's seconds begin at 0 again
        wait, seconds = await _ask(shifted(off), shifted(off - 1))
        assert wait == DAY and seconds is not None, off
        assert abs(seconds - time.time() - off) <= 2, off


async def test_fractions_of_a_second_count():
    server = fixed(1900000000, 0xC0000000)
    assert await _ask(server, server) == (DAY, 1900000001)


async def test_a_clock_that_is_right_is_left_alone():
    unix, clock.unix = clock.unix, lambda: 1900000000
    try:
        server = fixed(1900000000)
        assert await _ask(server, server) == (DAY, None)
    finally:
        clock.unix = unix


async def test_servers_that_differ_are_not_believed():
    for off in (-4, 4, 86400):
        assert await _ask(right, shifted(off)) == (RETRY, None), off


async def test_a_time_before_the_build_is_not_believed():
    assert await _ask(fixed(1700000000), fixed(1700000000)) == (RETRY, None)


async def test_an_unsound_answer_is_passed_over():
    for number, make in enumerate(
        (
            lambda request, wrong: packet(request, wrong, stratum=0),  # kiss of death
            lambda request, wrong: packet(request, wrong, stratum=16),
            lambda request, wrong: packet(request, wrong, leap=3),
            lambda request, wrong: packet(request, wrong, mode=3),
            lambda request, wrong: packet(request, wrong, nonce=b"guessed!"),
            lambda request, wrong: packet(request, wrong)[:47],
            lambda request, wrong: packet(request, -FROM_1900),  # no time at all
            lambda request, wrong: b"",
        )
    ):

        def answers(request, now, make=make):
            return [make(request, now + 9000), packet(request, now + 7)]

        wait, seconds = await _ask(answers, answers)
        assert wait == DAY and abs(seconds - time.time() - 7) <= 2, number


async def test_a_silent_server_is_waited_for_3_seconds_at_most():
    began = time.ticks_ms()
    assert await _ask(right, lambda request, now: []) == (RETRY, None)
    assert time.ticks_diff(time.ticks_ms(), began) < 4000


async def test_a_name_that_is_none_is_asked_again_later():
    assert await sntp.synchronise(["256.1.1.1", "256.1.1.1"]) == RETRY
