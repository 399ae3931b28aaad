"""The fixture `hub`: a local hub of its own process on free ports, for the whole test session.

A test uses device ids of its own. One that stops, kills or breaks the hub takes `own_hub`, which
is started for that test alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vedette_tools.connection import HubConnection, NotFound, identity_path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / ".venv" / "bin" / "vedette"
START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 15

Json = dict[str, Any]
Predicate = Callable[[list[Json]], bool]


class LocalHub:
    def __init__(
        self,
        state: Path,
        *,
        listen: str = "127.0.0.1",
        ports: tuple[int, int] = (0, 0),
        amqps_port: int | None = None,
        daily_quota: int | None = None,
    ) -> None:
        """`ports`: MQTT, HTTPS; 0 is any free one."""
        self.state = state
        self.log = state.with_suffix(".log")
        self.listen = listen
        self.ports = ports
        self.amqps_port = amqps_port
        self.daily_quota = daily_quota
        self._process: subprocess.Popen[str] | None = None

    # --- its life ---

    def start(self) -> Json:
        """Start on the ports it had before, or on free ones; returns what it printed."""
        mqtt_port, https_port = self.ports
        command = [str(COMMAND), "hub", "up", "--json", "-v", "--state", str(self.state)]
        command += ["--listen", self.listen]
        command += ["--mqtt-port", str(mqtt_port), "--https-port", str(https_port)]
        if self.amqps_port is not None:
            command += ["--amqps-port", str(self.amqps_port)]
        if self.daily_quota is not None:
            command += ["--daily-quota", str(self.daily_quota)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True
            )
        assert self._process.stdout
        line = self._process.stdout.readline()
        self.connection: Json = json.loads(line or "{}")
        if "ca" not in self.connection:
            self._process.wait(STOP_TIMEOUT_S)
            raise RuntimeError(f"the hub did not start: {line}\n{self.log.read_text()}")
        self.ports = (self.connection["mqtt_port"], self.connection["https_port"])
        self.service = HubConnection(
            self.connection["service_connection_string"],
            self.connection["ca"],
            self.connection["mqtt_port"],
        )
        return self.connection

    def stop(self) -> int:
        """End it as a user does; returns the exit code."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill9(self, process: str = "hub") -> None:
        """`kill -9` the process "hub", or "broker" (which the hub starts again by itself)."""
        assert self._process
        if process == "hub":
            self._process.kill()
            self._ended()
        else:
            pid = wait_for(
                lambda: self.service.request("GET", "/vedette/processes")[process], bool
            )
            with contextlib.suppress(ProcessLookupError):  # it has died already
                os.kill(pid, signal.SIGKILL)

    def _ended(self) -> int:
        assert self._process and self._process.stdout
        status = self._process.wait(STOP_TIMEOUT_S)
        self._process.stdout.close()
        return status

    # --- what is in it ---

    @property
    def ca(self) -> Path:
        """The CA certificate, PEM."""
        return Path(self.connection["ca"])

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def host(self) -> str:
        return str(self.connection["mqtt_host"])

    @property
    def port(self) -> int:
        return int(self.connection["mqtt_port"])

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the `vedette` command finds this hub."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("VEDETTE_HUB")}
        return {**kept, "VEDETTE_HUB_STATE": str(self.state)}

    def create_device(self, device: str, module: str | None = None) -> str:
        """The connection string of a device, or of a module; each is made unless it is there."""
        record = self._identity(device, None)
        if module:
            record = self._identity(device, module)
        return self.service.device_connection_string(record)

    def _identity(self, device: str, module: str | None) -> Json:
        path = f"/devices/{identity_path(device, module)}"
        try:
            record: Json = self.service.request("GET", path)
        except NotFound:
            record = self.service.request("PUT", path, {})
        return record

    def delete_device(self, device: str) -> None:
        path = f"/devices/{identity_path(device, None)}"
        self.service.request("DELETE", path, headers={"If-Match": "*"})

    def connected(self, device: str, module: str | None = None) -> bool:
        record = self.service.request("GET", f"/devices/{identity_path(device, module)}")
        return bool(record["connectionState"] == "Connected")

    def events(self, device: str | None = None) -> list[Json]:
        """What was received, as `vedette hub events` prints it."""
        query = {"device": device} if device else {}
        return [json.loads(line) for line in self.service.lines("/vedette/events", query)]

    def wait_events(
        self, device: str, predicate: Predicate | int = 1, timeout: float = 20
    ) -> list[Json]:
        """A device's events, once there are so many or `predicate` holds for them."""
        enough = predicate if callable(predicate) else lambda found: len(found) >= predicate
        return wait_for(lambda: self.events(device), enough, timeout)

    def twin(self, device: str, module: str | None = None) -> Json:
        twin: Json = self.service.request("GET", f"/twins/{identity_path(device, module)}")
        return twin

    def set_twin(self, device: str, desired: Json, module: str | None = None) -> Json:
        """Merge into the desired properties; returns the twin."""
        body = {"properties": {"desired": desired}}
        path = f"/twins/{identity_path(device, module)}"
        twin: Json = self.service.request("PATCH", path, body)
        return twin

    def wait_reported(
        self, device: str, predicate: Callable[[Json], bool], timeout: float = 20
    ) -> Json:
        """The reported properties, once `predicate` holds for them."""
        return wait_for(lambda: self.twin(device)["properties"]["reported"], predicate, timeout)

    def kick(self, device: str, module: str | None = None) -> None:
        self.service.request("POST", f"/vedette/kick/{identity_path(device, module)}")

    def fault(self, kind: str, **parameters: float) -> None:
        """Begin a fault, see tools/vedette_tools/hub/faults.py. `for_=` is its length in s."""
        if "for_" in parameters:
            parameters["for"] = parameters.pop("for_")
        self.service.request("PUT", f"/vedette/faults/{kind}", dict(parameters))

    def clear_faults(self) -> None:
        self.service.request("DELETE", "/vedette/faults")


def wait_for(look: Callable[[], Any], enough: Callable[[Any], bool], timeout: float = 20) -> Any:
    """What `look` gives, once it is `enough`. Fails with what it last gave."""
    deadline = time.monotonic() + timeout
    while not enough(found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s; last seen: {str(found)[-2000:]}")
        time.sleep(0.02)
    return found


def _running(directory: Path) -> Iterator[LocalHub]:
    hub = LocalHub(directory / "hub")
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    yield from _running(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[LocalHub]:
    yield from _running(tmp_path)
