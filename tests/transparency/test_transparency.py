"""An application behaves byte for byte the same with and without the tap.

Each application of apps/ runs on MicroPython both ways, with peers on CPython. The transcripts
(what its calls returned or raised, every byte it received) and what the peers received must be
equal; the bytes that the tap counted must be what the peers really got and sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LANES, device_environment
from iothub.pki import Authority

from transparency import peers

RUN = Path(__file__).parent / "run.py"
TCP, UDP = 6, 17
IN, OUT = 0, 1
LIMIT_S = 40
Flow = list  # as flowtable.unpack gives it


@pytest.fixture(params=os.environ.get("VEDETTE_LANES", "64").split(","))
def micropython(request: pytest.FixtureRequest) -> Path:
    program = LANES[request.param]
    if not program.exists():
        pytest.skip(f"no {request.param}-bit MicroPython here")
    return program


@dataclasses.dataclass(frozen=True)
class Authorities:
    """A CA with a certificate for localhost, and the server side's context for it."""

    ca: Path
    other_ca: Path
    certificate: Path
    key: Path
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    folder = tmp_path_factory.mktemp("pki")
    authority, other = Authority(folder), Authority(folder, "other")
    issued = authority.issue("server")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(issued, issued.with_suffix(".key"))
    return Authorities(
        ca=authority.der,
        other_ca=other.der,
        certificate=issued.with_suffix(".der"),
        key=folder / "server.key.der",
        server=server,
        client=ssl.create_default_context(cafile=str(authority.pem)),
    )


@dataclasses.dataclass
class Outcome:
    transcript: list[str]
    flows: list[Flow]

    def to(self, port: int) -> list[Flow]:
        """The flows to a port of a peer."""
        return [flow for flow in self.flows if flow[6] == port]

    def moved(self, port: int) -> tuple[int, int]:
        """Bytes out and in of all flows to a port."""
        return sum(f[8] for f in self.to(port)), sum(f[7] for f in self.to(port))


def start(program: Path, way: str, app: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [program, RUN, way, app, *map(str, arguments)],
        env=device_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    try:
        output, problems = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end: {process.communicate()}") from None
    assert process.returncode == 0, output[-3000:] + problems[-3000:]
    transcript, _, record = output.partition("\x02")
    flows = []
    if record:
        told = json.loads(record)
        assert told["errors"] == 0
        flows = told["flows"]
    return Outcome(transcript.splitlines(), flows)


def run(program: Path, way: str, app: str, *arguments: object) -> Outcome:
    return finish(start(program, way, app, *arguments))


def assert_same(plain: Outcome, tapped: Outcome) -> None:
    assert plain.transcript == tapped.transcript
    assert len(plain.transcript) > 2


@contextlib.contextmanager
def relayed(backend: int) -> Iterator[tuple[peers.Relay, peers.Relay]]:
    """Two relays to a server: one for the run without the tap, one for the run with it."""
    with peers.Relay(backend) as first, peers.Relay(backend) as second:
        yield first, second


def both_ways(program: Path, app: str, backend: int, *rest: object) -> tuple[Outcome, int]:
    """Run an application of one server both ways; what is true of each is asserted here."""
    with relayed(backend) as (first, second):
        plain = run(program, "plain", app, first.port, *rest)
        tapped = run(program, "tap", app, second.port, *rest)
        there, back = zip(*second.settled(), strict=True)
        assert_same(plain, tapped)
        assert tapped.moved(second.port) == (sum(there), sum(back))
        assert sum(f[9] for f in tapped.to(second.port)) == len(there)
        return tapped, second.port


def test_the_module_offers_the_same(micropython: Path) -> None:
    assert_same(run(micropython, "plain", "module"), run(micropython, "tap", "module"))


def test_blocking_and_polled_tcp(micropython: Path) -> None:
    closed = peers.free_port()
    with peers.serving(peers.Echo) as backend:
        tapped, _ = both_ways(micropython, "tcp", backend, closed)
    (refused,) = tapped.to(closed)
    assert refused[:2] == [TCP, OUT] and refused[7:10] == [0, 0, 1]


def test_udp(micropython: Path) -> None:
    with peers.udp_echo() as (port, counted):
        plain = run(micropython, "plain", "udp", port, peers.free_port(socket.SOCK_DGRAM))
        before = list(counted)
        own = peers.free_port(socket.SOCK_DGRAM)
        tapped = run(micropython, "tap", "udp", port, own)
        datagrams, received, sent = (now - then for now, then in zip(counted, before, strict=True))
    assert_same(plain, tapped)
    assert tapped.moved(port) == (received, sent)
    assert sum(f[9] for f in tapped.to(port)) == 2 * datagrams
    (served,) = (f for f in tapped.flows if f[4] == own)
    assert served[:2] == [UDP, IN] and served[7:10] == [3 * 8, 3 * 16, 6]


def test_asyncio_http_server_and_clients(micropython: Path) -> None:
    plain = run(micropython, "plain", "http", peers.free_port())
    port = peers.free_port()
    tapped = run(micropython, "tap", "http", port)
    assert_same(plain, tapped)
    outward = tapped.to(port)
    inward = [f for f in tapped.flows if f[4] == port]
    assert {tuple(f[:2]) for f in outward} == {(TCP, OUT)}
    assert {tuple(f[:2]) for f in inward} == {(TCP, IN)}
    assert sum(f[9] for f in outward) == len(inward) == 10
    # What the clients sent is what the server received, and the other way round.
    assert tapped.moved(port) == (sum(f[7] for f in inward), sum(f[8] for f in inward))


def test_tls_clients(micropython: Path, authorities: Authorities) -> None:
    with peers.serving(peers.Echo, authorities.server) as backend:
        both_ways(micropython, "tls_client", backend, authorities.ca)


def test_tls_that_is_refused(micropython: Path, authorities: Authorities) -> None:
    with (
        peers.serving(peers.Echo, authorities.server) as backend,
        peers.serving(peers.Reset) as reset,
    ):
        arguments = (backend, reset, authorities.ca, authorities.other_ca)
        plain = run(micropython, "plain", "tls_refused", *arguments)
        tapped = run(micropython, "tap", "tls_refused", *arguments)
    assert_same(plain, tapped)
    assert sum(f[9] for f in tapped.to(backend)) == 2 and len(tapped.to(reset)) == 1


def test_tls_server(micropython: Path, authorities: Authorities) -> None:
    outcomes = []
    for way in ("plain", "tap"):
        port = peers.free_port()
        device = start(
            micropython, way, "tls_server", port, authorities.certificate, authorities.key
        )
        assert device.stdout and device.stdout.readline() == "ready\n"
        with peers.Relay(port) as relay:
            echoed = talk_tls(relay.port, authorities.client)
            outcomes.append((finish(device), echoed, relay.settled(), port))
    (plain, plain_echo, _, _), (tapped, echo, counts, port) = outcomes
    assert_same(plain, tapped)
    assert plain_echo == echo == b"hello\n" + b"l" * 4000 + b"\n"
    inward = [f for f in tapped.flows if f[4] == port]
    assert sorted((f[7], f[8]) for f in inward if f[7]) == sorted(counts)


def talk_tls(port: int, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as s:
            s.settimeout(LIMIT_S)
            s.sendall(b"hello\n" + b"l" * 4000 + b"\n")
            echoed = b""
            while len(echoed) < 4007:
                echoed += s.recv(4096)
            return echoed


def test_mqtt(micropython: Path, tmp_path: Path) -> None:
    with peers.broker(tmp_path) as backend:
        both_ways(micropython, "mqtt", backend)


def test_requests(micropython: Path) -> None:
    with peers.serving(peers.Web) as backend:
        both_ways(micropython, "web", backend)
