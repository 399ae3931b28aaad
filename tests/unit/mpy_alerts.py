"""Alerts: for each rule what sets it off, and a benign twin of it that must stay silent."""

import asyncio
import socket
import sys

from flowtable import OUT, TCP
from harness import SkipTest
from hub_client import Client
from iothub import HubError, clock
from nettap import sockets
from vedette import alerts, lifecycle, log, networks, tap
from vedette.agent import Agent
from vedette.outbox import Outbox
from vedette.store import Store

log.level = 0
_HERE = bytes((10, 0, 0, 7))


class Desk:
    """An agent with these rules, beside a hub that is there."""

    number = 0

    def __init__(self, **rules):
        self.client = Client()
        Desk.number += 1
        self.store = Store("state%d" % Desk.number)
        self.agent = Agent(self.client, False, True, self.store, Outbox(16384))
        values = {"Alerts_" + rule: value for rule, value in rules.items()}
        self.agent.settings.apply(values)
        lifecycle.begin(self.agent)

    async def alerts(self):
        """The (rule, title) of all alerts so far, after a look at every rule."""
        await alerts.check(self.agent)
        self.agent.sender.wake()
        while self.agent.outbox.count:
            await asyncio.sleep_ms(1)
        return [tuple(event["Payload"]["rows"][0][:2]) for event in self.client.named("Alert")]

    async def end(self):
        await self.agent.stop()


def _flow(remote, port=443, sent=100):
    token = tap.table.open(TCP, OUT, _HERE, 40000, bytes(remote), port)
    assert tap.table.count_out(token, sent)


async def test_a_remote_address_outside_of_what_is_allowed():
    desk = Desk(AllowedAddresses="10.0.0.0/8, 2001:db8::/32")
    for remote in ((10, 1, 2, 3), (127, 0, 0, 1), b"\x20\x01\x0d\xb8" + bytes(12)):
        _flow(remote)
    assert await desk.alerts() == []
    _flow((203, 0, 113, 9))
    _flow((203, 0, 113, 9), 80)
    found = await desk.alerts()
    assert found == [("AllowedAddresses", "Connection with 203.0.113.9")], found
    # What it is about was sent with it, whatever the interval.
    (event,) = desk.client.named("ConnectionCreate")
    assert len(event["Payload"]["rows"]) == 5
    # The connection that goes on is not told of again in this interval.
    _flow((203, 0, 113, 9))
    assert len(await desk.alerts()) == 1 and len(desk.client.named("ConnectionCreate")) == 1
    desk.agent.known["until"] = clock.uptime()
    assert len(await desk.alerts()) == 2
    await desk.end()


async def test_everything_is_allowed_unless_the_twin_says_otherwise():
    desk = Desk()
    _flow((203, 0, 113, 9), sent=(1 << 30) - 1)
    assert await desk.alerts() == []
    await desk.end()


async def test_more_connections_than_the_limit():
    desk = Desk(FlowsLimit=20)
    for number in range(20):
        _flow((10, 0, 0, 9), number)
    assert await desk.alerts() == []
    _flow((10, 0, 0, 9), 20)
    assert await desk.alerts() == [("FlowsLimit", "Many connections")]
    await desk.end()


async def test_no_limit_is_no_alert():
    desk = Desk(FlowsLimit=0, PortsLimit=0)
    for number in range(250):
        _flow((10, 0, 0, 9), number)
    assert await desk.alerts() == []
    await desk.end()


async def test_more_bytes_to_one_peer_than_the_limit():
    desk = Desk(BytesOutLimit=1000)
    for number in range(4):
        _flow((10, 0, 0, 9), number, 250)
        _flow((10, 0, 0, number + 10), 443, 1000)
    assert await desk.alerts() == []
    _flow((10, 0, 0, 9), 0, 1)
    assert await desk.alerts() == [("BytesOutLimit", "Much sent to 10.0.0.9")]
    await desk.end()


class Listening:
    """Open sockets, as the tap tells of them."""

    def __init__(self, *ports):
        self.ports = ports

    def __call__(self):
        return [(TCP, None, port) for port in self.ports]


async def test_a_port_that_nothing_listened_on_since_the_last_start():
    sockets.listening = Listening(80)
    desk = Desk(UnknownPort=True)
    assert await desk.alerts() == []  # nothing is known of an earlier start
    await desk.end()
    sockets.listening = Listening(80, 4444)
    again = Desk(UnknownPort=True)
    again.agent.store = desk.store
    assert await again.alerts() == [("UnknownPort", "Port 4444 is open")]
    await again.end()
    third = Desk(UnknownPort=True)
    third.agent.store = desk.store
    assert await third.alerts() == []  # known by now
    sockets.listening = Listening(80, 4444, 23)
    assert await third.alerts() == [("UnknownPort", "Port 23 is open")]
    await third.end()


async def test_on_linux_the_port_may_be_any_programs():
    if sys.platform != "linux":
        raise SkipTest("this is not Linux")
    desk = Desk(UnknownPort=True)
    desk.agent.system = True
    assert await desk.alerts() == []  # nothing is known of an earlier start
    for kind, port, told in (
        (socket.SOCK_STREAM, 24680, True),
        (socket.SOCK_DGRAM, 24681, True),
        (socket.SOCK_DGRAM, 44444, False),  # the kernel gives a client such a port
    ):
        server = sockets.own_socket(socket.AF_INET, kind)  # the tap knows nothing of it
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
        if kind == socket.SOCK_STREAM:
            server.listen(1)
        alert = ("UnknownPort", "Port %d is open" % port)
        assert (alert in await desk.alerts()) == told, port
        server.close()
    await desk.end()


async def test_a_new_port_is_no_alert_where_the_rule_is_off():
    sockets.listening = Listening(80)
    desk = Desk()
    assert await desk.alerts() == []
    sockets.listening = Listening(80, 4444)
    assert await desk.alerts() == [] and desk.store.load("ports") is None
    await desk.end()


async def test_more_new_listening_ports_than_the_limit():
    sockets.listening = Listening(*range(1, 20))
    desk = Desk(PortsLimit=3)
    assert await desk.alerts() == []  # those that were there when the agent started
    sockets.listening = Listening(*range(1, 23))
    assert await desk.alerts() == []
    sockets.listening = Listening(*range(1, 24))
    assert await desk.alerts() == [("PortsLimit", "Many new listening ports")]
    await desk.end()


async def test_logins_that_fail_again_and_again():
    desk = Desk(FailedLoginsLimit=3)
    client = desk.client
    outage = ["unreachable"] * 5
    for codes, expected in (
        (outage, 0),
        (outage + ["certificate"] * 2, 0),
        (outage + ["certificate"] * 3, 1),
    ):
        client.connected = False
        for code in codes:
            client.last_error = HubError(code, "stand-in")
            client.stats["failures"] += 1
            await alerts.check(desk.agent)
        client.connected = True
        client.last_error = None
        found = await desk.alerts()
        assert len(found) == expected, (codes, found)
    assert found == [("FailedLoginsLimit", "The hub was not reached securely")]
    await desk.end()


async def test_a_changed_file():
    with open("app.py", "w") as file:
        file.write("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with open("deployed.txt", "w") as file:
        file.write("vedette 0.1.0\n%s 0 app.py\n" % empty)
    desk = Desk(ChangedFile=True)
    assert await desk.alerts() == []
    with open("app.py", "w") as file:
        file.write("import os\n")
    assert await desk.alerts() == []  # once an hour is enough
    desk.agent.known["files"] = 0
    assert await desk.alerts() == [("ChangedFile", "Changed: app.py")]
    await desk.end()


async def test_alerts_are_bounded_and_what_is_held_back_is_counted():
    desk = Desk(AllowedAddresses="10.0.0.0/8")
    for number in range(100):
        _flow((203, 0, 113, number))
    assert len(await desk.alerts()) == 32
    assert desk.agent.counters["alerts_held_back"] == 68
    await desk.end()


def test_networks_are_read_as_the_standards_write_them():
    for text, member, other in (
        ("10.0.0.0/8", (10, 255, 0, 1), (11, 0, 0, 0)),
        ("192.168.4.0/22", (192, 168, 7, 255), (192, 168, 8, 0)),
        ("192.0.2.1", (192, 0, 2, 1), (192, 0, 2, 2)),
        ("192.0.2.1/31", (192, 0, 2, 0), (192, 0, 2, 2)),
        (
            "2001:db8::/33",
            b"\x20\x01\x0d\xb8\x7f" + bytes(11),
            b"\x20\x01\x0d\xb8\x80" + bytes(11),
        ),
        ("::1", bytes(15) + b"\1", bytes(16)),
        ("fe80::1:2/128", b"\xfe\x80" + bytes(11) + b"\1\0\2", b"\xfe\x80" + bytes(14)),
        ("0.0.0.0/0", (203, 0, 113, 9), bytes(15) + b"\1"),
    ):
        known = networks.parse(text)
        assert networks.inside(bytes(member), known), text
        assert not networks.inside(bytes(other), known), text
    assert networks.inside(bytes((203, 0, 113, 9)), networks.parse("::/0"))
    assert networks.parse("") == networks.parse(" , ") == []


def test_what_is_no_network_is_refused_by_its_name():
    for text in (
        "10.0.0/8 10.0.0.0.0 10.0.0.256 10.0.0.0/33 10.0.0.0/ 10.0.0.0/-1 10.0.0.0/+8 a /8 "
        "1.0.0.0/8/8 ::/129 1::2::3 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9 12345::/16 g::/16 1::/1_0 "
        "0x1.0.0.1"
    ).split(" "):
        try:
            networks.parse("10.0.0.0/8," + text)
        except ValueError as error:
            assert str(error).startswith(text + " is no network"), error
        else:
            raise AssertionError(text)
