"""What the linker makes of modules, run on the real MicroPython."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import LANES
from vedette_tools import linker, mpy
from vedette_tools.errors import CommandError

DOCS = mpy.ROOT / "docs"
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


def write(sources: dict[str, str], folder: Path) -> Path:
    for path, text in sources.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


def link(sources: dict[str, str], folder: Path) -> Path:
    return write(linker.link(sources), folder)


def run(program: str, lane: str, folder: Path, here: Path | None = None) -> list[str]:
    """The lines that a program prints, or the traceback's, with the folder as its module path."""
    environment = {**os.environ, "MICROPYPATH": f":{folder}:.frozen"}
    done = subprocess.run(
        [LANES[lane], "-c", program],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return (done.stdout + done.stderr).splitlines()


def linked_and_run(sources: dict[str, str], program: str, lane: str, folder: Path) -> list[str]:
    return run(program, lane, link(sources, folder))


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


# --- what the docs promise to an application, of the agent's own modules ---


def agent_sources() -> dict[str, str]:
    return {relative.as_posix(): path.read_text() for path, relative in mpy.sources()}


@pytest.fixture(scope="module", params=["as written", "linked"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of a board's modules."""
    folder = tmp_path_factory.mktemp("board")
    return (link if request.param == "linked" else write)(agent_sources(), folder)


def example(page: str, first: str) -> str:
    """The page's example that begins with those words."""
    found = re.search(rf"```python\n({re.escape(first)}.*?)```", (DOCS / page).read_text(), re.S)
    assert found, page
    return found[1]


@pytest.mark.parametrize("lane", LANES)
def test_what_the_docs_tell_an_application_to_call_is_called_so(lane: str, board: Path) -> None:
    table = (DOCS / "iothub.md").read_text().partition("## Calls")[2].partition("##")[0]
    firsts = [line.split(" | ")[0] for line in table.splitlines()]
    calls = re.findall(r"(\w+)\(", "".join(firsts))
    assert {"start", "on_connection", "send_stream", "forget"} <= set(calls)
    program = "from iothub import HubClient\nprint([c for c in %s if c not in dir(HubClient)])"
    assert run(program % calls, lane, board) == ["[]"]


STAR = """
import builtins
names = {}
exec("from %s import *", names)
print([name for name in names if hasattr(builtins, name)])
"""


@pytest.mark.parametrize("module", [*linker.PUBLIC, "nettap.sockets"])
def test_all_of_a_public_module_hides_nothing_of_an_application(module: str, board: Path) -> None:
    assert run(STAR % module, "64", board) == ["[]"]


FLOWS = """
remote = b"\\x0a\\0\\0\\x02"
local = None
%s
"""


@pytest.mark.parametrize("lane", LANES)
def test_the_example_of_the_flow_table(lane: str, board: Path) -> None:
    program = FLOWS % example("flow-table.md", "from flowtable")
    flow = "(6, 1, 0, None, 50122, b'\\n\\x00\\x00\\x02', 8883, 0, 600, 1, 0, 0)"
    assert run(program, lane, board) == [flow]


TAP = """
%s
server = socket.socket()
server.bind(socket.getaddrinfo("127.0.0.1", 0)[0][-1])
server.listen(1)
print([protocol for protocol, address, port in sockets.listening()])
print(sockets.errors)
table.open = None
client = socket.socket()
client.connect(socket.getaddrinfo("127.0.0.1", sockets.listening()[0][2])[0][-1])
print(sockets.errors)
from nettap.sockets import errors
print(errors, hasattr(sockets, "nope"))
sockets.uninstall()
"""


@pytest.mark.parametrize("lane", LANES)
def test_the_example_of_the_tap_and_its_count_of_errors(lane: str, board: Path) -> None:
    program = TAP % example("nettap.md", "import flowtable")
    assert run(program, lane, board) == ["[6]", "0", "1", "1 False"]


PACK = """
from vedette import baseline
from vedette.ports.board_facts import Facts

class Agent:
    settings = dict.fromkeys(
        ("Baseline_CustomChecks", "Baseline_GroupsDisabled", "Baseline_ChecksDisabled"), ""
    )

facts = Facts(Agent)
facts.PACKS = ()
print([result[:3] for result in baseline.results(Agent, facts) if result])
print(list(facts.files(code=True)))
"""


@pytest.mark.parametrize("lane", LANES)
def test_the_example_of_a_pack(lane: str, board: Path, tmp_path: Path) -> None:
    (tmp_path / "baseline_pump.py").write_text(example("baseline.md", 'CHECKS = """'))
    (tmp_path / "pump.py").write_text("def read():\n    return 7\n")
    result, files = run(PACK, lane, board, tmp_path)
    assert result == "[('ACME-1-Pump-1.1', 'Fail', 'it is 7 bar')]"
    assert sorted(ast.literal_eval(files)) == ["baseline_pump.py", "pump.py"]


COLLECTOR = """
import asyncio
import iothub
import vedette

async def main():
    client = iothub.HubClient(iothub.Credentials("host", "device", b"key"), ca=["root.der"])
    agent = vedette.start(client=client, module_identity=True, journal=False, outbox_size=4096)
    import socket
    server = socket.socket()
    server.bind(socket.getaddrinfo("127.0.0.1", 0)[0][-1])
    server.listen(1)
    await asyncio.sleep(0)
    print(await agent.collect("ListeningPorts"))
    for offset in agent.outbox.entries():
        print(bytes(agent.outbox.content(offset)).decode())
    await agent.stop(timeout=0)

asyncio.run(main())
"""


@pytest.mark.parametrize("lane", LANES)
def test_the_example_of_a_collector_in_an_application(lane: str, tmp_path: Path) -> None:
    sources = agent_sources()
    path = "vedette/collectors/listening_ports.py"
    sources[path] = example("embedding.md", "from nettap import sockets")
    output = run(COLLECTOR, lane, link(sources, tmp_path), tmp_path)
    assert "True" in output, output
    assert any('"columns":["local_port"]' in line for line in output), output
