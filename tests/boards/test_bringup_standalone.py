"""main.py on bad days: failed starts, errors that nobody caught, no network, a wrong clock."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from mainpy import GOOD, SECRET, Board

NAP = "import asyncio\nasync def main():\n    print('app runs')\n    await asyncio.sleep(99)"
LEAVES_A_TASK = """
import asyncio, socket, sys

async def later():
    await asyncio.sleep_ms(50)
    print("app runs", socket, sorted(sys.modules))

async def main():
    asyncio.create_task(later())
"""
HOG = """
import asyncio

hog = [None] * 4096

def fill(least):  # the heap, but for pieces of less bytes
    size = 65536
    at = 0
    while size >= least:
        try:
            hog[at] = bytearray(size)
            at += 1
        except MemoryError:
            size //= 2
"""
FROM_1900 = 2208988800


def kept(board: Board) -> dict:
    return json.loads((board.folder / "vedette-state" / "starts.json").read_text())


def test_the_watchdog_is_fed_by_the_loop_whatever_the_network_does(board: Board) -> None:
    code, output = board.run({**GOOD, "watchdog": 30}, NAP, until="fed")
    assert code == 0 and "watchdog 30" in output and "connected" not in output


def test_safe_mode_leaves_the_application_alone(board: Board) -> None:
    config = {**GOOD, "watchdog": 30}
    for _ in range(3):
        _, output = board.run(config, NAP, "hub: ", signal.SIGKILL, cause="WDT_RESET")
        assert "app runs" in output and "safe mode" not in output
    code, output = board.run(config, LEAVES_A_TASK, "app runs", cause="WDT_RESET")
    assert code == 0 and "safe mode: the last starts failed" in output
    assert "hub: " not in output and "watchdog" not in output and "vedette.agent" not in output
    assert "<module 'socket'>" in output  # the native one: the tap is out
    # Ctrl-C ends it on purpose, as a deploy does: the next start is like any other.
    _, output = board.run(GOOD, NAP, "hub: ", cause="WDT_RESET")
    assert "safe mode" not in output


def test_an_agent_that_breaks_at_the_start_leaves_the_application_alone(board: Board) -> None:
    (board.folder / "iothub.py").write_text(f"raise KeyError({SECRET!r})")
    code, output = board.run(GOOD, "async def main():\n    print('app runs')")
    assert code == 1 and "the agent failed: KeyError" in output and "app runs" in output
    assert kept(board)["error"] == "KeyError" and "iothub.py:1 <module>" in kept(board)["where"]
    assert SECRET not in json.dumps(kept(board))


def test_what_ends_the_application_is_evidence(board: Board) -> None:
    board.run(GOOD, f"async def main():\n    raise ValueError({SECRET!r})", "hub: ")
    # The running agent has it in its outbox already: nothing is kept for the next start.
    assert kept(board)["error"] is None
    board.run("{", f"async def main():\n    raise ValueError({SECRET!r})")
    assert kept(board)["error"] == "ValueError"
    assert kept(board)["where"].endswith("app.py:2 main")


def test_a_task_that_fails_unseen_is_evidence(board: Board) -> None:
    app = """
import asyncio

async def first():
    raise KeyError("%s")

async def second():
    raise OSError(5)

async def main():
    asyncio.create_task(first())
    await asyncio.sleep(0)
    asyncio.create_task(second())
    await asyncio.sleep_ms(20)
    print("app goes on")
    await asyncio.sleep(99)
"""
    _, output = board.run("{", app % SECRET, "app goes on")
    assert "in first" in output and "in second" in output  # both are shown, as ever
    # One for a start is kept: what fails again and again must not wear the flash out.
    assert kept(board)["error"] == "KeyError"
    assert kept(board)["where"].endswith("app.py:5 first")
    # With an agent, it is in the outbox.
    board.run(GOOD, app, "app goes on")
    assert kept(board)["error"] is None


def test_a_task_that_fails_with_the_heap_full_ends_nothing_else(board: Board) -> None:
    # Full from when the error is shown: tasks of the agent that run before would free some.
    app = """
class Fails(Exception):
    def __repr__(self):
        fill(16)
        return ""

async def fails():
    raise Fails

async def main():
    asyncio.create_task(fails())
    await asyncio.sleep(1)
    hog.clear()
    print("app goes on")
    await asyncio.sleep(99)
"""
    code, output = board.run(GOOD, HOG + app, "app goes on")
    assert code == 0 and "in fails" in output, output


def test_an_event_loop_that_breaks_with_the_heap_full_starts_the_board_anew(board: Board) -> None:
    app = """
async def main():
    fill(16)
    asyncio.core._io_queue.poller = None
    await asyncio.sleep(1)
"""
    code, output = board.run(GOOD, HOG + app)
    assert code == 2 and output.endswith("reset\n"), output


def test_an_event_loop_that_breaks_starts_the_board_anew(board: Board) -> None:
    app = NAP.replace("print('app runs')", "asyncio.core._io_queue.poller = None")
    code, output = board.run(GOOD, app)
    assert code == 2 and "the event loop failed: " in output
    assert kept(board)["error"] == "AttributeError"


def test_a_host_without_network_module_says_so_and_goes_on(board: Board) -> None:
    wifi = {"type": "wifi", "ssid": "lab", "password": "correct horse"}
    code, output = board.run({**GOOD, "network": wifi}, until="hub: ")
    assert code == 0 and "correct horse" not in output
    assert "network: cannot be brought up: no module named 'network'" in output


class TimeServer:
    """Answers SNTP with a clock that is `off` seconds ahead."""

    def __init__(self, off: float) -> None:
        self.off = off
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while True:
            request, peer = self.socket.recvfrom(100)
            if request == b"quit":
                return
            seconds, fraction = divmod(time.time() + self.off + FROM_1900, 1)
            self.socket.sendto(
                struct.pack(
                    "!BBxx20x8s8xII", 0x24, 2, request[40:], int(seconds), int(fraction * 2**32)
                ),
                peer,
            )

    def close(self) -> None:
        self.socket.sendto(b"quit", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@pytest.fixture
def time_servers(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    servers = [TimeServer(off) for off in request.param]
    yield [server.name for server in servers]
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("time_servers", "said"),
    [((500.5, 500), "the clock was 50[01] s off"), ((0, 500), "differ by (499|500) s")],
    indirect=["time_servers"],
)
def test_the_clock_is_checked_by_two_servers(
    board: Board,
    time_servers: list[str],
    said: str,
) -> None:
    code, output = board.run({**GOOD, "time_servers": time_servers}, until="time: ")
    assert code == 0 and re.search(said, output), output
