"""The network comes up, comes back, and says why not: stand-ins behave as the boards do."""

import sys

import warp

warp.jumping()

import asyncio  # noqa: E402 - after the clock
import time  # noqa: E402

from nettap import sockets  # noqa: E402
from vedette import bringup, log, sntp, standalone  # noqa: E402, F401 - resident, to be watched

SECRET = "correct horse"
WIFI = {"type": "wifi", "ssid": "lab", "password": SECRET}
DAY_MS = 86400_000

said = []
log.info = log.warning = log.error = said.append


class Link:
    """An interface: `in_ms` after it is told to connect it is up, never if None."""

    in_ms = 700
    refused = 0  # the status that says why it never is

    def __init__(self, calls):
        self.calls = calls
        self.on = False
        self.since = None

    def active(self, on=None):
        if on is not None:
            self.calls.append("active")
            self.on = on
        return self.on

    def isconnected(self):
        if self.since is None or self.in_ms is None:
            return False
        return time.ticks_diff(time.ticks_ms(), self.since) >= self.in_ms

    def ifconfig(self):
        return ("192.168.4.7", "255.255.255.0", "192.168.4.1", "192.168.4.1")

    def status(self):
        return self.refused if self.since is not None else 0


class Wlan(Link):
    """As the ESP32's, which is stricter than the Pico W's: it refuses to connect twice."""

    def connect(self, ssid, key=None):
        assert self.on, "Wifi Not Started"
        if self.since is not None:
            raise OSError("Wifi Internal Error")
        self.calls.append(("connect", ssid, key))
        self.since = time.ticks_ms()

    def disconnect(self):
        self.calls.append("disconnect")
        self.since = None


class Lan(Link):
    def active(self, on=None):
        if on:
            self.since = time.ticks_ms()
        return super().active(on)


class Network:
    """The module `network` of an ESP32 with Wi-Fi and Ethernet."""

    STA_IF = 0
    STAT_WRONG_PASSWORD = 202
    PHY_LAN8710 = 0  # a constant, and false
    PHY_LAN8720 = 1

    def __init__(self):
        self.calls = []
        self.nic = None

    def country(self, code):
        self.calls.append(("country", code))

    def hostname(self, name):
        self.calls.append(("hostname", name))

    def WLAN(self, interface):
        assert interface == self.STA_IF
        self.nic = self.nic or Wlan(self.calls)
        return self.nic

    def LAN(self, **arguments):
        self.calls.append(("LAN", arguments))
        self.nic = Lan(self.calls)
        return self.nic


class Stm32Network:
    """The module `network` of an STM32: the class has the constants, and there is no Wi-Fi."""

    class LAN(Lan):
        PHY_LAN8742 = 0
        cable = True

        def __init__(self, phy_type=PHY_LAN8742, phy_addr=0):
            super().__init__([])
            self.phy = (phy_type, phy_addr)

        def active(self, on=None):
            if on and not self.cable:
                raise OSError(110)
            # Asked, it tells of the link, not whether it was told to start.
            return super().active(on) if on else self.cable


class Machine:
    @staticmethod
    def Pin(name):
        return "Pin", name


sys.modules["machine"] = Machine


def _board(network):
    sys.modules["network"] = network
    said.clear()
    return network


class Online:
    """`async with`: keeps a board online, and counts how often its clock was set right."""

    def __init__(self, config, answers=(86400,)):
        self.config = config
        self.answers = list(answers)
        self.asked = []

    async def synchronise(self, servers):
        self.asked.append((servers, time.ticks_ms()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise OSError(5)
        return answer

    async def __aenter__(self):
        sntp.synchronise = self.synchronise
        self.task = asyncio.create_task(standalone._online(self.config, ("a", "b")))
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        assert SECRET not in str(said)


async def test_wifi_comes_up_and_then_the_clock_is_set():
    network = _board(Network())
    config = dict(WIFI, country="DE", hostname="sensor-7")
    async with Online(config) as online:
        await asyncio.sleep(20)
    names = [("country", "DE"), ("hostname", "sensor-7")]
    assert network.calls == names + ["active", "disconnect", ("connect", "lab", SECRET)]
    assert [servers for servers, _ in online.asked] == [("a", "b")]
    assert said == ["network: up, 192.168.4.7"]


async def test_the_tap_knows_this_end_of_connections():
    sockets.local_address = None
    _board(Network())
    async with Online(WIFI):
        await asyncio.sleep(0.5)
        assert sockets.local_address is None  # not up yet
        await asyncio.sleep(20)
    assert sockets.local_address(b"\x08\x08\x08\x08") == b"\xc0\xa8\x04\x07"
    assert sockets.local_address(b"\x7f\0\0\1") == b"\x7f\0\0\1"
    assert sockets.local_address(bytes(16)) is None and sockets.local_address(None) is None


async def test_the_clock_is_set_daily_and_sooner_where_that_failed():
    _board(Network())
    async with Online(WIFI, (60, None, 86400)) as online:
        await asyncio.sleep(2 * 86400 + 3600)
    times = [moment for _, moment in online.asked]
    gaps = [time.ticks_diff(later, earlier) // 1000 for earlier, later in zip(times, times[1:])]
    assert len(gaps) == 4 and all([60 <= gap <= 65 for gap in gaps[:2]]), gaps
    assert all([86400 <= gap <= 86405 for gap in gaps[2:]]), gaps


async def test_wifi_comes_back_by_itself():
    network = _board(Network())
    async with Online(WIFI):
        await asyncio.sleep(10)
        network.nic.since = time.ticks_add(time.ticks_ms(), DAY_MS)  # the access point is gone
        await asyncio.sleep(10)
        assert network.calls[-2:] == ["disconnect", ("connect", "lab", SECRET)]
        await asyncio.sleep(10)
    assert said == ["network: up, 192.168.4.7"] * 2


async def test_a_refused_password_is_named_and_tried_again():
    network = _board(Network())
    Link.in_ms, Link.refused = None, 202
    try:
        async with Online(WIFI) as online:
            await asyncio.sleep(80)
            assert said == ["network: not up after 30 s: WRONG_PASSWORD"] * 2
            assert not online.asked
            Link.in_ms = 700
            await asyncio.sleep(40)
    finally:
        Link.in_ms, Link.refused = 700, 0
    assert said[-1] == "network: up, 192.168.4.7" and network.nic.isconnected()


async def test_an_open_network_needs_no_password():
    network = _board(Network())
    async with Online({"type": "wifi", "ssid": "open"}):
        await asyncio.sleep(2)
    assert network.calls[-1] == ("connect", "open", None)


async def test_ethernet_takes_pins_and_the_phy_by_name():
    network = _board(Network())
    config = {"type": "ethernet", "phy_type": "LAN8710", "phy_addr": 1, "mdc": 23, "mdio": 18}
    async with Online(config) as online:
        await asyncio.sleep(20)
    arguments = {"phy_type": 0, "phy_addr": 1, "mdc": ("Pin", 23), "mdio": ("Pin", 18)}
    assert network.calls == [("LAN", arguments), "active"] and online.asked


async def test_ethernet_of_an_stm32_needs_nothing():
    _board(Stm32Network)
    async with Online({"type": "ethernet", "phy_type": "LAN8742"}) as online:
        await asyncio.sleep(20)
    assert online.asked and said == ["network: up, 192.168.4.7"]


async def test_a_cable_may_come_later():
    _board(Stm32Network)
    Stm32Network.LAN.cable = False
    try:
        async with Online({"type": "ethernet"}) as online:
            await asyncio.sleep(70)
            assert said == ["network: cannot be brought up: [Errno 110] ETIMEDOUT"] * 2
            Stm32Network.LAN.cable = True
            await asyncio.sleep(70)
            assert online.asked and said[-1] == "network: up, 192.168.4.7"
    finally:
        Stm32Network.LAN.cable = True


async def test_what_a_board_has_not_is_said_and_holds_nothing_up():
    for network, config in (
        (Stm32Network, WIFI),
        (Network(), {"type": "ethernet", "phy_type": "W9"}),
        (Stm32Network, {"type": "ethernet", "mdc": 1}),
    ):
        _board(network)
        async with Online(config) as online:
            await asyncio.sleep(140)
            assert not online.task.done() and not online.asked
        assert len(said) == 3
        assert said[0].startswith("network: cannot be brought up: "), said


async def test_time_is_kept_where_the_application_makes_the_network():
    sys.modules.pop("network", None)
    async with Online(None) as online:
        await asyncio.sleep(2)
    assert len(online.asked) == 1


async def test_an_unexpected_error_does_not_end_it():
    network = _board(Network())
    calls = []
    failed, log.failed = log.failed, lambda *what: calls.append(what)
    network.WLAN = lambda interface: 1 // 0
    async with Online(WIFI) as online:
        await asyncio.sleep(12)
        assert not online.task.done()
    log.failed = failed
    assert [what for what, _ in calls] == ["network"] * 3
