"""What the client does when hub, certificate or key is not as it should be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from device import KEY, Device, connection_string, lane
from fakehub import FakeHub, publish
from pki import Authority

__all__ = ["lane"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.issue("server")
    return authority


@pytest.fixture
def hub(authority: Authority) -> Iterator[FakeHub]:
    with FakeHub(authority.folder / "server.pem") as hub:
        yield hub


def device(lane: str, hub: FakeHub, authority: Authority, **options: object) -> Device:
    return Device(lane, connection_string(hub.port), authority.der, **options)


def refused(lane: str, port: int, ca: Path, host: str = "localhost") -> dict[str, str]:
    with Device(lane, connection_string(port, host), ca) as probe:
        number = probe.do("wait", timeout=1)
        return probe.expect("error", number=number)


@pytest.mark.parametrize(
    ("file", "host", "days", "code", "words"),
    [
        ("wrong-host", "elsewhere.test", (-1, 30), "host-name", "localhost"),
        ("expired", "localhost", (-30, -1), "certificate", "expired"),
        ("future", "localhost", (2, 30), "clock-not-set", "begins later"),
    ],
)
def test_a_certificate_that_is_not_right(
    lane: str,
    authority: Authority,
    file: str,
    host: str,
    days: tuple[int, int],
    code: str,
    words: str,
) -> None:
    with FakeHub(authority.issue(file, host, days)) as hub:
        error = refused(lane, hub.port, authority.der)
        assert error["code"] == code and words in error["text"]
        assert not hub.connects  # the password never left the device


def test_an_unknown_authority(lane: str, hub: FakeHub, tmp_path: Path) -> None:
    error = refused(lane, hub.port, Authority(tmp_path, "other").der)
    assert error["code"] == "certificate" and "root" in error["text"]
    assert not hub.connects


def test_a_root_that_is_none(lane: str, hub: FakeHub, tmp_path: Path) -> None:
    error = refused(lane, hub.port, tmp_path / "missing.der")
    assert error["code"] == "certificate" and "cannot read" in error["text"]
    (tmp_path / "text.der").write_text("not a certificate")
    error = refused(lane, hub.port, tmp_path / "text.der")
    assert error["code"] == "certificate" and "DER" in error["text"]


def test_nobody_listens(lane: str, authority: Authority) -> None:
    with FakeHub(authority.folder / "server.pem") as hub:
        pass
    assert refused(lane, hub.port, authority.der)["code"] == "unreachable"


def test_an_unknown_name(lane: str, hub: FakeHub, authority: Authority) -> None:
    assert refused(lane, hub.port, authority.der, "no-such-host.invalid")["code"] == "dns"


def test_a_key_that_is_refused(lane: str, hub: FakeHub, authority: Authority) -> None:
    hub.refuse = 5
    error = refused(lane, hub.port, authority.der)
    assert error["code"] == "refused" and KEY not in str(error)
    assert b"SharedAccessSignature sr=localhost%2Fdevices%2Fdev&sig=" in hub.connects[0]


def test_the_user_name(lane: str, hub: FakeHub, authority: Authority) -> None:
    with device(lane, hub, authority, model_id="dtmi:a:b;1", keepalive=100) as probe:
        probe.expect("connection", up=True)
    user = b"localhost/dev/?api-version=2021-04-12&model-id=dtmi%3Aa%3Ab%3B1"
    assert hub.connects[0].startswith(
        b"\0\x04MQTT\x04\xc0\0\x64\0\x03dev\0" + bytes((len(user),)) + user
    )


def test_a_hub_that_takes_the_connection_and_says_nothing(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    hub.silent = True
    with device(lane, hub, authority, lag=True, speed=1) as probe:
        number = probe.do("send", body="x", timeout=2)
        probe.expect("error", number=number, code="timeout", timeout=6)
        probe.do("lag")
        assert probe.expect("lag")["max_ms"] < 250


def test_what_was_not_acknowledged_is_sent_again(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    with device(lane, hub, authority) as probe:
        probe.expect("desired", full=True)
        hub.silent = True
        number = probe.do("send", body="x")
        wait_until(lambda: hub_got(hub, "messages/events"))
        hub.silent = False
        hub.drop()
        probe.expect("connection", up=False, code="closed")
        probe.expect("sent", number=number)
        firsts = [first for first, topic, _ in hub.published if "messages/events" in topic]
        assert firsts == [0x32, 0x3A]
        probe.expect("desired", full=True)  # the twin again, after each connect


def test_connections_lost_under_load(lane: str, hub: FakeHub, authority: Authority) -> None:
    hub.latency = 0.005
    with device(lane, hub, authority) as probe:
        numbers = []
        for i in range(60):
            numbers.append(probe.do("send", body=str(i)))
            if i % 20 == 19:
                hub.drop()
                probe.expect("connection", up=True)
        for number in numbers:
            probe.outcome(number)
    bodies = [int(body) for _, topic, body in hub.published if "messages/events" in topic]
    assert set(bodies) == set(range(60))


def test_a_hub_that_stops_reading_does_not_hold_the_loop(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    with device(lane, hub, authority, lag=True, speed=1) as probe:
        probe.expect("desired", full=True)
        probe.do("lag")
        hub.deaf.set()
        stream = probe.do("stream", size=250000)
        time.sleep(1)
        probe.do("lag")
        probe.expect("lag")
        assert probe.expect("lag")["max_ms"] < 250
        probe.do("stats")
        assert 0 < probe.expect("stats")["written"] < 250000
        hub.drop()
        hub.deaf.clear()
        probe.expect("error", number=stream, code="closed")
        probe.expect("connection", up=True)
        number = probe.do("send", body="z")
        probe.expect("sent", number=number)


def test_a_hub_that_never_reads_again_is_left_for_a_new_connection(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    with device(lane, hub, authority) as probe:
        probe.expect("desired", full=True)
        hub.deaf.set()
        stream = probe.do("stream", size=250000)
        probe.expect("connection", up=False, code="timeout")
        hub.deaf.clear()
        probe.outcome(probe.do("send", body="z"))
        assert [t["code"] for t in probe.told if t.get("number") == stream] == ["closed"]


def test_a_dead_hub_is_noticed_by_keep_alive(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    with device(lane, hub, authority, keepalive=4) as probe:
        probe.expect("desired", full=True)
        hub.silent = True
        begin = time.monotonic()
        probe.expect("connection", up=False, code="timeout")
        assert time.monotonic() - begin < (4 * 1.5 + 1) / 5 + 1  # the tick is half a second
        hub.silent = False
        probe.expect("connection", up=True)


def test_random_bytes_end_in_a_reconnect(lane: str, hub: FakeHub, authority: Authority) -> None:
    with device(lane, hub, authority) as probe:
        for packet in (b"\x00\x00", b"\x30\xff\xff\xff\xff\xff", b"\x40\x03abc"):
            probe.expect("desired", full=True)
            hub.send(packet)
            probe.expect("connection", up=False, code="protocol")


def test_a_twin_that_is_malformed_or_too_large(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    prefix = "$iothub/twin/PATCH/properties/desired/?$version="
    with device(lane, hub, authority, max_message=2000) as probe:
        probe.expect("desired", full=True)
        hub.send(publish(prefix + "2", b'{"a":'))
        hub.send(publish(prefix + "3", b"[1]"))
        hub.send(publish("$iothub/twin/res/x", b""))
        hub.send(publish("elsewhere", b"x"))
        hub.send(publish(prefix + "4", b'{"a":"' + b"x" * 3000 + b'"}'))
        hub.send(publish(prefix + "5", b'{"a":5,"$version":5}'))
        probe.expect("desired", full=False, version=5, desired={"a": 5})
        probe.do("stats")
        stats = probe.expect("stats")
        assert (stats["malformed"], stats["oversized"], stats["connects"]) == (4, 1, 1)


def test_stop_is_clean_and_start_again_works(
    lane: str, hub: FakeHub, authority: Authority
) -> None:
    with device(lane, hub, authority) as probe:
        probe.expect("connection", up=True)
        hub.silent = True
        number = probe.do("send", body="x")
        wait_until(lambda: hub_got(hub, "messages/events"))
        probe.do("stop")
        probe.expect("error", number=number, code="stopped")
        hub.silent = False
        probe.do("start")
        probe.expect("connection", up=True)
        number = probe.do("send", body="x")
        probe.expect("sent", number=number)


def hub_got(hub: FakeHub, part: str) -> bool:
    return any(part in topic for _, topic, _ in hub.published)


def wait_until(holds, timeout: float = 10) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
