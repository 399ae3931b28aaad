"""What the linker makes of modules, run on the real MicroPython."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import LANES
from vedette_tools import linker, mpy
from vedette_tools.errors import CommandError

AGENT = {
    "vedette/__init__.py": "",
    "vedette/tap.py": "from nettap import sockets\ntable = None\n\ndef install():\n"
    "    global table\n    table = sockets.made(1)\n",
    "vedette/validation.py": "def check(value):\n    return value < 4\n",
    "vedette/lifecycle.py": "from . import tap\nfrom .validation import check\n\n"
    "def begin():\n    return check(3), tap.table\n",
    "vedette/sending.py": "",
    "nettap/sockets.py": "LIMIT = 7\nopened = 0\n\ndef made(limit):\n    return limit + LIMIT\n",
    "umqtt/simple.py": "class MQTTClient:\n    def ping(self):\n        return 'ping'\n\n"
    "    def unused(self):\n        return 1\n",
    "iothub/mqtt.py": "from umqtt.simple import MQTTClient\n\nclass Session(MQTTClient):\n"
    "    def __init__(self, keepalive=1):\n        self._kept = keepalive\n\n"
    "    def go(self):\n        return self.ping() + str(self._kept)\n",
    "vedette/agent.py": "from iothub.mqtt import Session\nfrom nettap import sockets\n"
    "from . import tap\n\ndef start():\n    tap.install()\n    sockets.opened = 3\n"
    "    return Session(keepalive=5).go(), tap.table, sockets.opened\n",
}
PROGRAM = """
from vedette import agent, tap
print(agent.start(), tap.table)
from nettap import sockets
from iothub.mqtt import Session
from umqtt.simple import MQTTClient
from vedette import lifecycle, validation
print(lifecycle.begin(), validation.check(5))
print(sockets.LIMIT, sockets.made(2), Session(keepalive=9).go(), MQTTClient().unused())
"""


def linked_and_run(sources: dict[str, str], program: str, lane: str, folder: Path) -> list[str]:
    """The lines that a program prints, or the traceback's, which imports linked modules."""
    for path, text in linker.link(sources).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    environment = {**os.environ, "MICROPYPATH": f"{folder}:.frozen"}
    done = subprocess.run(
        [LANES[lane], "-c", program], env=environment, capture_output=True, text=True, timeout=20
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("lane", LANES)
def test_linked_modules_do_what_they_did(lane: str, tmp_path: Path) -> None:
    assert linked_and_run(AGENT, PROGRAM, lane, tmp_path) == [
        "('ping5', 8, 3) 8",
        "(True, 8) False",
        "7 9 ping9 1",
    ]
    assert "unused" not in (tmp_path / "vedette/agent.py").read_text()


ANY_NAME = """
import asyncio

async def _run(lock):
    async with lock:
        assert lock is None, "as it is written"

def start():
    try:
        asyncio.run(_run(asyncio.Lock()))
    except AssertionError as error:
        print(error)
    print(%s)
"""


def test_no_short_name_takes_what_compiled_code_looks_up(tmp_path: Path) -> None:
    functions = [f"_f{number}" for number in range(200)]
    text = ANY_NAME % " + ".join(f"{name}()" for name in functions)
    text += "".join(f"def {name}():\n    return 1\n" for name in functions)
    sources = {**AGENT, "vedette/agent.py": text}
    program = "from vedette import agent\nagent.start()"
    assert linked_and_run(sources, program, "64", tmp_path) == ["as it is written", "200"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from nettap import sockets\n\ndef start():\n    return [sockets]\n", "as an object"),
        ("from nettap import sockets\n\ndef start():\n    return sockets.nope()\n", "has no nope"),
    ],
)
def test_what_cannot_be_linked_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        linker.link({**AGENT, "vedette/agent.py": text})


def test_the_agent_is_two_modules_and_an_application_finds_the_rest() -> None:
    sources = {relative.as_posix(): path.read_text() for path, relative in mpy.sources()}
    linked = linker.link(sources)
    assert linked.keys() == sources.keys()
    assert "HubClient" in linked["iothub/__init__.py"]
    assert len(linked["iothub/client.py"]) < 400 < len(sources["iothub/client.py"])


@pytest.mark.parametrize("lane", LANES)
def test_what_the_docs_tell_an_application_to_call_is_called_so(lane: str, tmp_path: Path) -> None:
    sources = {relative.as_posix(): path.read_text() for path, relative in mpy.sources()}
    table = (mpy.ROOT / "docs/iothub.md").read_text().partition("## Calls")[2].partition("##")[0]
    firsts = [line.split(" | ")[0] for line in table.splitlines()]
    calls = re.findall(r"(\w+)\(", "".join(firsts))
    assert {"start", "on_connection", "send_stream", "forget"} <= set(calls)
    program = "from iothub import HubClient\nprint([c for c in %s if c not in dir(HubClient)])"
    assert linked_and_run(sources, program % calls, lane, tmp_path) == ["[]"]
