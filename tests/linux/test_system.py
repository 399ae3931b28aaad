"""An agent alone on Linux, next to real programs: what the hub gets is what `ps` and `ss` say."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LANES, ROOT, device_environment
from e2e.conftest import rows, settled
from hubfixture import Json, LocalHub, wait_for
from vedette_tools.expand import expand
from watcher import network  # noqa: F401 - a fixture

HIGH = ("NetworkActivity", "Process", "ListeningPorts")
LOOK_S = 0.3  # a look at the hub is a connection too, and the table has an end
TWIN = {
    "CollectorsCore_PriorityIntervals": "0.05,1,1440",
    **{f"{name}_MessageFrequency": "High" for name in HIGH},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("linux")


@pytest.fixture(scope="module")
def hub(
    network: None,  # noqa: F811
    folder: Path,
) -> Iterator[LocalHub]:
    hub = LocalHub(folder / "hub")
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def device(folder: Path, hub: LocalHub) -> Iterator[str]:
    """main.py on the unix port, configured and connected."""
    device = "linux"
    (folder / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    config = {"connection_string": hub.create_device(device), "ca": "ca.der"}
    (folder / "config.json").write_text(json.dumps(config))
    hub.set_twin(device, {"microAgent": TWIN})
    process = subprocess.Popen(
        [LANES["64"], ROOT / "firmware" / "main.py"], cwd=folder, env=device_environment()
    )
    settled(hub, device)
    yield device
    process.terminate()
    process.wait(20)


def seen(hub: LocalHub, device: str, name: str, **values: object) -> list[Json]:
    """The rows of that event that have these values."""
    time.sleep(LOOK_S)
    found = rows(hub.events(device), name)
    return [row for row in found if all(row[key] == value for key, value in values.items())]


def test_the_hub_is_told_what_ps_and_ss_say(device: str, hub: LocalHub, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/config.json"
    body = wait_for(lambda: fetch(url), bool)

    with_server = wait_for(lambda: seen(hub, device, "ListeningPorts", local_port=port), bool)
    assert with_server[0]["process_id"] == server.pid
    if shutil.which("ss"):
        said = output("ss", "-Htlnp")
        (line,) = [line for line in said.splitlines() if f"127.0.0.1:{port} " in line]
        assert f'("{with_server[0]["process_name"]}",pid={server.pid},' in line

    line = " ".join(command)
    (process,) = wait_for(lambda: seen(hub, device, "ProcessCreate", commandline=line), bool)
    said = output("ps", "-o", "ppid=,uid=", "-p", str(server.pid))
    assert [process["parent_process_id"], process["user_id"]] == [int(x) for x in said.split()]
    assert (process["process_id"], process["hit_count"]) == (server.pid, 1)

    def both_ends() -> list[tuple[Json, Json]]:
        asked = {row["local_port"]: row for row in flows(hub, device, remote_port=port)}
        served = {row["remote_port"]: row for row in flows(hub, device, local_port=port)}
        return [(asked[own], served[own]) for own in set(asked) & set(served)]

    fetch(url)
    for asked, served in wait_for(both_ends, lambda found: len(found) > 1):
        assert (asked["direction"], served["direction"]) == ("Out", "In")
        assert (asked["bytes_in"], asked["bytes_out"]) == (served["bytes_out"], served["bytes_in"])
        assert asked["bytes_in"] > len(body)
    owner = server.pid, with_server[0]["process_name"]
    wait_for(lambda: owners(hub, device, port), lambda found: owner in found)
    server.terminate()
    server.wait(10)


def test_of_the_agents_own_connection_only_the_brokers_end_is_told(
    device: str, hub: LocalHub
) -> None:
    hub.kick(device)
    wait_for(lambda: flows(hub, device, local_port=hub.port), bool)
    assert not flows(hub, device, remote_port=hub.port)


def flows(hub: LocalHub, device: str, **values: object) -> list[Json]:
    return seen(hub, device, "ConnectionCreate", **values)


def owners(hub: LocalHub, device: str, port: int) -> set[tuple[int, str]]:
    """The processes that connections on this local port belong to."""
    time.sleep(LOOK_S)
    events = [event for record in hub.events(device) for event in record["body"]["Events"]]
    return {
        (owner["process_id"], owner["process_name"])
        for event in events
        for owner in expand(event).get("Processes", [])
        if owner["local_port"] == port
    }


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""
