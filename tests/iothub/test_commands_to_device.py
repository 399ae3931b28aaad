"""Direct methods and cloud-to-device messages, from the local hub's service side to the client."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from device import Device, lane
from hubfixture import LocalHub, wait_for
from test_local_hub import device, root

__all__ = ["lane", "root"]


def invoke(hub: LocalHub, path: str, name: str, payload: Any = None) -> tuple[int, Any]:
    body = {"methodName": name, "payload": payload, "responseTimeoutInSeconds": 10}
    answer = hub.service.request("POST", f"/twins/{path}/methods", body)
    return answer["status"], answer["payload"]


def ready(probe: Device) -> None:
    """Waits until the device has subscribed: its twin has come then."""
    probe.expect("desired", full=True)


@pytest.mark.parametrize("module", [None, "agent"])
def test_methods(lane: str, hub: LocalHub, root: Path, module: str | None) -> None:
    name = f"methods-{lane}"
    path = name + (f"/modules/{module}" if module else "")
    text = hub.create_device(name, module)
    with device(lane, hub, root, text, methods=True) as probe:
        ready(probe)
        for payload in (None, 1, {"ü": [1, 2.5, None]}, "x" * 5000):
            assert invoke(hub, path, "echo", payload) == (200, {"got": payload})
        assert invoke(hub, path, "slow", {"seconds": 0.3}) == (202, {"slept": 0.3})
        assert invoke(hub, path, "unknown")[0] == 404
        assert invoke(hub, path, "big")[0] == 500
        assert invoke(hub, path, "echo", "y" * 9000)[0] == 413
        assert invoke(hub, path, "echo", 2) == (200, {"got": 2})


def test_a_method_that_raises(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"raises-{lane}"
    with device(lane, hub, root, hub.create_device(name), methods=True) as probe:
        ready(probe)
        probe.prints = True
        assert invoke(hub, name, "fail", {}) == (500, {"error": "the method failed"})
        assert invoke(hub, name, "slow", {}) == (500, {"error": "the method failed"})
        assert invoke(hub, name, "echo", 1) == (200, {"got": 1})
        probe.do("stats")
        assert probe.expect("stats")["callback_errors"] == 2


def test_methods_run_one_after_the_other(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"queue-{lane}"
    with device(lane, hub, root, hub.create_device(name), methods=True, speed=1) as probe:
        ready(probe)
        begin = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(invoke, hub, name, "slow", {"seconds": 0.4}) for _ in range(7)]
            statuses = sorted(call.result()[0] for call in calls)
        took = time.monotonic() - begin
        refused = statuses.count(503)
        assert statuses == [202] * (7 - refused) + [503] * refused
        assert refused == 3 and took >= 4 * 0.4


def send(hub: LocalHub, name: str, body: str, **properties: str | None) -> None:
    message = {"body": body, "properties": properties}
    hub.service.request("POST", f"/vedette/messages/{name}", message)


def test_messages_wait_for_the_device_and_come_once(lane: str, hub: LocalHub, root: Path) -> None:
    name = f"messages-{lane}"
    text = hub.create_device(name)
    with device(lane, hub, root, text, messages=True) as probe:
        ready(probe)
        send(hub, name, "now", colour="grün +", empty="", null=None)
        told = probe.expect("message")
        assert told["body"] == "now"
        assert (
            told["properties"] | {"colour": "grün +", "empty": "", "null": None}
            == (told["properties"])
        )
    for i in range(30):
        send(hub, name, f"later {i}")
    with device(lane, hub, root, text, messages=True) as probe:
        for i in range(30):
            assert probe.expect("message")["body"] == f"later {i}"
    with device(lane, hub, root, text, messages=True) as probe:
        ready(probe)
        send(hub, name, "last")
        assert probe.expect("message")["body"] == "last"
        assert [t["body"] for t in probe.told if t["event"] == "message"] == ["last"]


def test_messages_are_acknowledged_while_a_stream_is_written(
    lane: str, hub: LocalHub, root: Path
) -> None:
    name = f"both-{lane}"
    text = hub.create_device(name)
    with device(lane, hub, root, text, messages=True) as probe:
        ready(probe)
        streams = []
        for i in range(20):
            streams.append(probe.do("stream", size=60000))
            send(hub, name, str(i))
        assert [probe.expect("message")["body"] for _ in range(20)] == [str(i) for i in range(20)]
        for number in streams:
            probe.outcome(number)
        # Acknowledgements take turns with the streams: the last ones may still be on their way.
        count = "cloudToDeviceMessageCount"
        wait_for(lambda: hub.service.request("GET", f"/devices/{name}")[count], lambda n: n == 0)
