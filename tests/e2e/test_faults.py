"""What goes wrong: a clear word or a quiet retry, an application that goes on, nothing lost."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from hubfixture import LocalHub, wait_for

from .conftest import QUICK, VEDETTE, Agent, flows_to, settled
from .peers import udp_sink
from .test_twin import STEADY_APP, sizes

# Writes a growing file: what shows that the application lives, whatever the agent meets.
TICKING_APP = """
import asyncio

async def main():
    while True:
        with open("ticks", "a") as file:
            file.write(".")
        await asyncio.sleep_ms(100)
"""


def ticks(agent: Agent) -> int:
    path = agent.board / "ticks"
    return path.stat().st_size if path.exists() else 0


def goes_on(agent: Agent) -> None:
    """The application ticks, and neither it nor the agent has printed a traceback."""
    before = ticks(agent)
    wait_for(lambda: ticks(agent), lambda now: now > before + 5)
    assert agent.running
    assert "Traceback" not in agent.log


def test_a_hub_that_is_not_there_yet(own_hub: LocalHub, own_agent: Agent) -> None:
    connection_string = own_hub.create_device("early")
    own_hub.set_twin("early", {"microAgent": QUICK})
    own_hub.stop()
    with udp_sink() as sink:
        own_agent.start(connection_string, STEADY_APP % sink.port)
        own_agent.wait_log("unreachable")
        time.sleep(2)
        own_hub.start()
        own_hub.set_twin("early", {"microAgent": QUICK})
        records = own_hub.wait_events(
            "early", lambda found: len(flows_to(found, sink.port)) >= 12, 40
        )
    found = sizes(records, sink.port)
    assert found == list(range(1, len(found) + 1))
    assert "Traceback" not in own_agent.log


def test_a_hub_that_restarts(own_hub: LocalHub, own_agent: Agent) -> None:
    connection_string = own_hub.create_device("restart")
    own_hub.set_twin("restart", {"microAgent": QUICK})
    with udp_sink() as sink:
        own_agent.start(connection_string, STEADY_APP % sink.port)
        own_hub.wait_events("restart", lambda found: flows_to(found, sink.port))
        own_hub.stop()
        time.sleep(5)
        sent = len(sink.bytes)
        own_hub.start()
        records = own_hub.wait_events(
            "restart", lambda found: len(flows_to(found, sink.port)) >= sent + 4, 40
        )
    found = sizes(records, sink.port)
    assert found == list(range(1, len(found) + 1))


def test_a_wrong_key(hub: LocalHub, agent: Agent) -> None:
    wrong = base64.b64encode(os.urandom(32)).decode()
    string = re.sub("SharedAccessKey=.*", f"SharedAccessKey={wrong}", hub.create_device("key"))
    agent.start(string, TICKING_APP)
    agent.wait_log("refused")
    goes_on(agent)
    assert wrong not in agent.log


def test_a_wrong_ca(hub: LocalHub, agent: Agent, own_hub: LocalHub) -> None:
    agent.environment["VEDETTE_HUB_CA"] = str(own_hub.ca)
    agent.start(hub.create_device("wrong-ca"), TICKING_APP)
    agent.wait_log("certificate")
    goes_on(agent)


def test_a_wrong_host_name(hub: LocalHub, agent: Agent) -> None:
    string = hub.create_device("wrong-host").replace(
        "localhost", "127.1"
    )  # resolves, but is not in the certificate
    agent.start(string, TICKING_APP)
    agent.wait_log("host-name")
    goes_on(agent)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"connection_string": nope}', "line 1"),
        ('["connection_string"]', "object"),
        ('{"connection_string": "x", "ca": ["ca0.der"], "colour": 1}', "colour"),
        ('{"connection_string": 7, "ca": ["ca0.der"]}', "connection_string"),
        ('{"ca": ["ca0.der"]}', "connection_string"),
        ('{"connection_string": "HostName=a;DeviceId=b", "ca": ["ca0.der"]}', "SharedAccessKey"),
        (
            '{"connection_string": "HostName=a;DeviceId=b;SharedAccessKey=!!", "ca": ["ca0.der"]}',
            "base64",
        ),
    ],
)
def test_a_config_file_with_a_fault(hub: LocalHub, agent: Agent, text: str, word: str) -> None:
    """The application runs without the agent, and the log says what to mend."""
    agent.start(hub.create_device("config"), TICKING_APP)
    wait_for(lambda: ticks(agent), lambda now: now > 0)
    agent.stop()
    (agent.board / "config.json").write_text(text)
    agent.run_board()
    wait_for(lambda: agent.log, lambda log: "does not run" in log and word in log)
    goes_on(agent)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_config_file_for_simulate_that_is_not_json(agent: Agent, text: str) -> None:
    config = agent.folder / "config.json"
    config.write_text(text)
    string = "HostName=localhost;DeviceId=d;SharedAccessKey=AAAA"
    assert agent.start(string, "", "--config", str(config)).wait(20) == 1
    assert "is not JSON" in agent.log and "Traceback" not in agent.log


@pytest.mark.parametrize("options", [(), ("--app", "app.py")])
def test_a_folder_with_an_application_is_not_taken_for_a_board(
    agent: Agent, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.board.mkdir()
    monkeypatch.chdir(agent.board)
    mine = agent.board / "app.py"
    mine.write_text("mine")
    string = "HostName=localhost;DeviceId=d;SharedAccessKey=AAAA"
    assert agent.start(string, "", *options).wait(20) == 1
    assert "is no simulated board" in agent.log and "Traceback" not in agent.log
    assert mine.read_text() == "mine" and list(agent.board.iterdir()) == [mine]


@pytest.mark.parametrize("device", ["..", "../../board", "a/../.."])
def test_a_simulated_board_is_in_a_folder_of_its_own(
    hub: LocalHub, tmp_path: Path, device: str
) -> None:
    environment = {
        **hub.env,
        "VEDETTE_HUB_CA": str(hub.ca),
        "VEDETTE_HUB_STATE": str(tmp_path / "state" / "hub"),
        "VEDETTE_DEVICE": f"HostName=localhost;DeviceId={device};SharedAccessKey=AAAA",
    }
    done = subprocess.run(
        [VEDETTE, "simulate", "--heap", "1k"], env=environment, capture_output=True, timeout=20
    )
    assert done.returncode and b"Traceback" not in done.stderr
    simulated = tmp_path / "state" / "hub" / "simulated"
    assert {path.parent.parent for path in tmp_path.rglob("config.json")} <= {simulated}


def test_a_board_that_cannot_be_made_is_told(agent: Agent) -> None:
    agent.board.touch()
    string = "HostName=localhost;DeviceId=d;SharedAccessKey=AAAA"
    assert agent.start(string).wait(20) == 1
    assert "cannot write to" in agent.log and "Traceback" not in agent.log


def test_what_a_simulated_board_says_as_json(hub: LocalHub, agent: Agent) -> None:
    agent.start(hub.create_device("json"), "async def main():\n    print('hello')\n", "--json")
    agent.wait_log("connected")
    assert agent.stop() == 0
    told = [json.loads(line) for line in agent.log.splitlines()]
    said = [(line["level"], line["text"]) for line in told]
    assert (None, "hello") in said and ("info", "connected") in said


@pytest.mark.parametrize("ending", ["return", "raise ValueError('oops')", "1 / 0"])
def test_an_application_that_ends(hub: LocalHub, agent: Agent, ending: str) -> None:
    device = f"ends-{ending[:5].strip()}".replace(" ", "").replace("/", "")
    hub_string = hub.create_device(device)
    hub.set_twin(device, {"microAgent": QUICK})
    agent.start(hub_string, f"async def main():\n    {ending}\n")
    agent.wait_log("the agent goes on")
    settled(hub, device)
    assert hub.wait_events(device) and agent.running


def test_what_is_in_the_connection_string_stays_in_the_config_file(
    hub: LocalHub, agent: Agent
) -> None:
    agent.start(hub.create_device("secret"), TICKING_APP)
    agent.wait_log("connected")
    config = agent.board / "config.json"
    assert config.stat().st_mode & 0o077 == 0
    key = json.loads(config.read_text())["connection_string"].partition("SharedAccessKey=")[2]
    assert key and key not in agent.log
