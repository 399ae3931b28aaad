"""What the agent sees of other programs' connections on Linux. Those are threads of the test."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from conftest import LANES
from watcher import LIBC, Flow, Watcher, network  # noqa: F401 - a fixture

LANES_WANTED = os.environ.get("VEDETTE_LANES", "64").split(",")
SOON_S = 5.0


@pytest.fixture(params=LANES_WANTED)
def watcher(
    network: None,  # noqa: F811
    request: pytest.FixtureRequest,
) -> Iterator[Watcher]:
    program = LANES[request.param]
    if not program.exists():
        pytest.skip(f"no {request.param}-bit MicroPython")
    with closing(Watcher(program)) as watcher:
        yield watcher


class Server:
    """Answers each question of `size` bytes by `answer` bytes, on as many connections as come."""

    def __init__(self, family: int = socket.AF_INET, size: int = 8, answer: int = 5000) -> None:
        self.host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.listener = socket.create_server((self.host, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.size, self.answer = size, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        with peer:
            while peer.recv(self.size, socket.MSG_WAITALL):
                peer.sendall(b"a" * self.answer)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port))

    def ask(self, client: socket.socket) -> None:
        client.sendall(b"q" * self.size)
        assert len(client.recv(self.answer, socket.MSG_WAITALL)) == self.answer

    def close(self) -> None:
        self.listener.close()


def both_ends(server: Server, port: int, questions: int, hits: int = 1) -> list[Flow]:
    out, back = questions * server.size, questions * server.answer
    host = server.host
    return [
        Flow("TCP", "In", host, server.port, host, port, out, back, hits),
        Flow("TCP", "Out", host, port, host, server.port, back, out, hits),
    ]


def soon(watcher: Watcher, port: int, count: int) -> list[Flow]:
    """The flows of this port, once there are so many."""
    found: list[Flow] = []
    end = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < end:
        time.sleep(0.05)
        found += watcher.flows(port)
    return sorted(found)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_that_is_gone_at_once_is_seen_from_both_ends(
    watcher: Watcher, family: int
) -> None:
    watcher.need("gone")
    with closing(Server(family)) as server:
        with server.connect() as client:
            port = client.getsockname()[1]
            server.ask(client)
        assert soon(watcher, server.port, 2) == both_ends(server, port, 1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("first", ["client", "server"])
def test_the_end_that_closes_first_is_told_exactly(
    watcher: Watcher, family: int, first: str
) -> None:
    watcher.need("gone")
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection((host, port))
        own = client.getsockname()[1]
        server = listener.accept()[0]
        client.sendall(b"q" * 100)
        server.sendall(server.recv(100, socket.MSG_WAITALL) * 2)
        client.recv(200, socket.MSG_WAITALL)
        ends = (client, server) if first == "client" else (server, client)
        ends[0].close()
        time.sleep(0.1)
        ends[1].close()
        assert soon(watcher, port, 2) == [
            Flow("TCP", "In", host, port, host, own, 100, 200, 1),
            Flow("TCP", "Out", host, own, host, port, 200, 100, 1),
        ]


def test_the_application_is_told_by_the_port_that_serves(watcher: Watcher) -> None:
    for port, application in ((1883, "MQTT"), (8080, "HTTP")):
        try:
            server = socket.create_server(("127.0.0.1", port))
        except OSError:
            pytest.skip(f"port {port} is in use")
        with server, socket.create_connection(("127.0.0.1", port)) as client:
            client.send(b"hello")
            with server.accept()[0] as peer:
                assert peer.recv(5) == b"hello"
                watcher.ask("look")
        found = watcher.flows(port)
        assert {(flow.direction, flow.application) for flow in found} == {
            ("In", application),
            ("Out", application),
        }


def test_ipv4_of_a_socket_of_ipv6_is_one_sighting_of_ipv4(watcher: Watcher) -> None:
    watcher.need("gone")
    watcher.need("packets")
    with closing(Server()) as server, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", server.port))
        port = client.getsockname()[1]
        server.ask(client)
        for _ in range(3):
            watcher.ask("look")
        assert watcher.flows(server.port) == both_ends(server, port, 1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("timeout", [None, 5], ids=["waiting", "not-waiting"])
def test_a_refused_connection_is_a_flow_without_bytes(
    watcher: Watcher, family: int, timeout: float | None
) -> None:
    watcher.need("gone")
    watcher.need("packets")
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family) as nobody, socket.socket(family) as client:
        nobody.bind((host, 0))  # and does not listen
        port = nobody.getsockname()[1]
        client.settimeout(timeout)
        client.bind((host, 0))
        own = client.getsockname()[1]
        assert client.connect_ex((host, port)) != 0
    time.sleep(0.2)
    for _ in range(3):
        watcher.ask("look")
    assert watcher.flows(own) == [Flow("TCP", "Out", host, own, host, port, 0, 0, 1)]


def test_a_connection_that_nobody_answers_is_one_try(watcher: Watcher) -> None:
    watcher.need("packets")
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        there = server.getsockname()
        stack.enter_context(socket.create_connection(there))  # nobody takes it: it is full
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(there)
        port = client.getsockname()[1]
        for _ in range(2):  # the kernel sends the SYN again after a second
            for _ in range(3):
                watcher.ask("look")
            time.sleep(1.2)
        for _ in range(3):
            watcher.ask("look")
        assert watcher.flows(port) == [
            Flow("TCP", "Out", "127.0.0.1", port, "127.0.0.1", there[1], 0, 0, 1)
        ]


def test_a_socket_that_tries_another_server_is_another_connection(watcher: Watcher) -> None:
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(deaf.getsockname()))  # now it is full
        server = stack.enter_context(closing(Server()))
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(deaf.getsockname())
        first = client.getsockname()[1]
        watcher.ask("look")
        # connect(2): an address of AF_UNSPEC ends it, as a refusal would.
        assert LIBC.connect(client.fileno(), bytes(16), 16) == 0
        client.setblocking(True)
        client.connect((server.host, server.port))
        server.ask(client)
        watcher.ask("look")
        port = client.getsockname()[1]
        assert soon(watcher, server.port, 2) == both_ends(server, port, 1)
        for _ in range(3):
            watcher.ask("look")
        assert watcher.flows(first, port) == []


def test_a_long_connection_counts_what_each_interval_moved(watcher: Watcher) -> None:
    with closing(Server()) as server, server.connect() as client:
        port = client.getsockname()[1]
        server.ask(client)
        watcher.ask("look")
        assert watcher.flows(server.port) == both_ends(server, port, 1)
        watcher.ask("look")
        assert watcher.flows(server.port) == []  # idle
        server.ask(client)
        watcher.ask("look")
        server.ask(client)
        watcher.ask("look")
        assert watcher.flows(server.port) == both_ends(server, port, 2)


def test_a_connection_from_before_counts_from_the_start_on(watcher: Watcher) -> None:
    with closing(Server()) as server, server.connect() as client:
        port = client.getsockname()[1]
        server.ask(client)
        with closing(Watcher(watcher.program)) as late:
            late.ask("look")
            assert late.flows(server.port) == []
            server.ask(client)
            late.ask("look")
            assert late.flows(server.port) == both_ends(server, port, 1)


def test_who_may_not_see_packets_is_told_of_connected_udp_sockets(watcher: Watcher) -> None:
    with closing(Watcher(watcher.program, ordinary=True)) as ordinary:
        assert not ordinary.sees["packets"]
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            udp.connect(("127.0.0.1", 9))
            port = udp.getsockname()[1]
            ordinary.ask("look")
            assert ordinary.flows(port) == [
                Flow("UDP", "Out", "127.0.0.1", port, "127.0.0.1", 9, 0, 0, 1)
            ]


def test_what_the_tap_reports_is_not_reported_again(watcher: Watcher) -> None:
    watcher.need("gone")
    watcher.need("packets")
    with closing(Server(answer=50)) as server, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for _ in range(3):
            assert watcher.ask(f"tcp {server.port}") == {"done": True}
        found = soon(watcher, server.port, 6)
        assert [f[:2] for f in found] == [("TCP", "In")] * 3 + [("TCP", "Out")] * 3
        assert {f.hits for f in found} == {1}
        assert sorted(f.local_port for f in found[3:]) == sorted(f.remote_port for f in found[:3])

        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        threading.Thread(
            target=lambda: udp.sendto(b"answer", udp.recvfrom(100)[1]), daemon=True
        ).start()
        assert watcher.ask(f"udp {port}") == {"done": True}
        time.sleep(0.2)
        there, here = watcher.flows(port)
        assert there[:2] == ("UDP", "In") and there[6:9] == (8, 6, 2)
        assert here[:2] == ("UDP", "Out") and here[6:9] == (6, 8, 2)


def test_the_agents_own_connection_is_not_reported(watcher: Watcher) -> None:
    watcher.need("gone")
    with closing(Server(answer=50)) as server:
        for command in ("kept", "native", "native"):
            assert watcher.ask(f"{command} {server.port}") == {"done": True}
        found = soon(watcher, server.port, 3)
        assert [f.direction for f in found] == ["In"] * 3  # the server is another program


def test_datagrams_and_echoes_are_counted(watcher: Watcher) -> None:
    watcher.need("packets")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as one,
        socket.socket(type=socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        here, there = one.getsockname(), two.getsockname()
        for _ in range(5):
            one.sendto(b"q" * 40, there)
            two.sendto(b"a" * 3000, two.recvfrom(100)[1])
        time.sleep(0.3)
        assert watcher.flows(here[1]) == [
            Flow("UDP", "In", *there, *here, 200, 15000, 10),
            Flow("UDP", "Out", *here, *there, 15000, 200, 10),
        ]


def test_with_many_local_addresses_nothing_is_lost_but_some_of_their_names(
    watcher: Watcher,
) -> None:
    watcher.need("packets")
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        for number in range(20):
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.bind((f"127.0.1.{number}", 0))
                client.sendto(b"q" * 40, ("127.0.0.1", port))
        time.sleep(0.3)
        flows = [flow for flow in watcher.flows(port) if flow.direction == "Out"]
    assert len(flows) == 20 and {flow[6:9] for flow in flows} == {(0, 40, 1)}
    named = {flow.local for flow in flows} - {None}
    assert 10 <= len(named) < 20 and named < {f"127.0.1.{number}" for number in range(20)}


@pytest.mark.parametrize(
    ("family", "host", "protocol", "echo"),
    [(socket.AF_INET, "127.0.0.9", 1, 8), (socket.AF_INET6, "::1", 58, 128)],
)
def test_a_ping_is_seen(
    watcher: Watcher, family: int, host: str, protocol: int, echo: int
) -> None:
    watcher.need("packets")
    message = struct.pack(">BBHHH", echo, 0, 0, 1, 1) + b"p" * 56
    if protocol == 1:
        total = sum(struct.unpack(">32H", message))
        message = message[:2] + struct.pack(">H", ~(total % 0xFFFF) & 0xFFFF) + message[4:]
    with socket.socket(family, socket.SOCK_RAW, protocol) as ping:
        for _ in range(3):
            ping.sendto(message, (host, 0))
        time.sleep(0.3)
    (flow,) = [f for f in watcher.flows() if f.protocol == "ICMP" and f.remote == host]
    # Requests and replies are sent and received here, and both ends are ours.
    assert flow.bytes_in >= 192 and flow.bytes_out == flow.bytes_in and flow.hits >= 6
