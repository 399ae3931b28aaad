"""The agent as a user runs it: `vedette simulate` with an application, against a local hub."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubfixture import LocalHub, hub, own_hub, wait_for  # noqa: F401 - fixtures
from mainpy import AGAIN_S, signal_at_rest
from vedette_tools import mpy
from vedette_tools.expand import expand

VEDETTE = Path(sys.executable).with_name("vedette")
MICROPYTHON = Path(sys.executable).with_name("micropython")
MPY32 = Path(__file__).resolve().parents[2] / "build" / "mpy32" / "micropython"
DEVICE_CODE = Path(__file__).resolve().parents[1] / "device"
STOP_TIMEOUT_S = 15
STOP_TRIES = 3

Json = dict[str, Any]

# A collection every 3 s of what a test looks at; the twin of a device that is not a module.
QUICK = {
    "CollectorsCore_PriorityIntervals": "0.05,0.05,1440",
    "NetworkActivity_MessageFrequency": "High",
    "NetworkActivity_OverflowPolicy": "DropNew",
    "Statistics_MessageFrequency": "High",
}


class Agent:
    """One simulated board. `app` is the text of its app.py."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.board = folder / "board"
        self.log_file = folder / "agent.log"
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, connection_string: str, app: str = "", *options: str) -> Agent:
        command = [str(VEDETTE), "simulate", "--state", str(self.board), *options]
        if app:
            source = self.folder / "source.py"
            source.write_text(app)
            command += ["--app", str(source)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**self.environment, "VEDETTE_DEVICE": connection_string},
            )
        return self

    def run_board(self, faster: int = 0) -> None:
        """Start the board again with what is in its folder, as after a reset.

        `faster`: on a clock that runs so many times as fast.
        """
        command, _ = mpy.simulated_board(MICROPYTHON, "160k", self.board)
        environment = {**self.environment, "MICROPYPATH": f"{self.board}:.frozen"}
        if faster:
            command[-1] = f"import warp\nwarp.faster({faster})\n" + command[-1]
            environment["MICROPYPATH"] += f":{DEVICE_CODE}"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.board,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> int:
        """End it as Ctrl-C does; returns the exit code."""
        assert self._process
        for _ in range(STOP_TRIES):  # one can be swallowed: see mainpy
            if self._process.poll() is None:
                signal_at_rest(self._process, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(AGAIN_S)
        raise AssertionError("it does not end: " + self.log)

    def kill9(self) -> None:
        """`kill -9`, as when a board loses its power."""
        assert self._process
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def wait(self, timeout: float) -> int:
        assert self._process
        return self._process.wait(timeout)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_log(self, text: str, timeout: float = 20) -> None:
        wait_for(lambda: self.log, lambda log: text in log, timeout)


@pytest.fixture
def agent(tmp_path: Path, hub: LocalHub) -> Iterator[Agent]:  # noqa: F811
    yield from _agent(tmp_path, hub)


@pytest.fixture
def own_agent(tmp_path: Path, own_hub: LocalHub) -> Iterator[Agent]:  # noqa: F811
    """An agent for the hub that belongs to this test alone."""
    yield from _agent(tmp_path, own_hub)


def _agent(folder: Path, local_hub: LocalHub) -> Iterator[Agent]:
    agent = Agent(folder, local_hub.env)
    yield agent
    if agent.running:
        agent.stop()
    # What must never be seen, whatever a test looks at.
    key = "SharedAccessKey="
    assert key not in agent.log
    assert "SharedAccessSignature" not in agent.log


def rows(records: list[Json], name: str) -> list[Json]:
    """The rows of all events of that name, in the `objects` form, in order of arrival.

    As a receiver must, it drops an event whose Id it has: messages come at least once.
    """
    events: dict[str, Json] = {}
    for record in records:
        assert not record.get("schemaError"), record["schemaError"]
        for event in record["body"]["Events"]:
            events.setdefault(event["Id"], event)
    chosen = [event for event in events.values() if event["Name"] == name]
    return [row for event in chosen for row in expand(event)["Payload"]]


def flows_to(records: list[Json], port: int) -> list[Json]:
    """The flows whose remote port is this one."""
    return [row for row in rows(records, "ConnectionCreate") if row["remote_port"] == port]


def settled(local_hub: LocalHub, device: str) -> Json:
    """Reported properties once the agent runs with the twin it has now."""
    version = local_hub.twin(device)["properties"]["desired"]["$version"]

    def applied(reported: Json) -> bool:
        return reported.get("microAgent", {}).get("applied_version") == version

    return local_hub.wait_reported(device, applied)["microAgent"]
