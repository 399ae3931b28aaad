"""Which processes the agent sees come to be on Linux, by the kernel's events and by polling."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from conftest import LANES, device_environment
from watcher import Process, Watcher

LANES_WANTED = os.environ.get("VEDETTE_LANES", "64").split(",")
SOON_S = 5.0


@pytest.fixture(params=[(lane, way) for lane in LANES_WANTED for way in ("events", "polling")])
def watcher(request: pytest.FixtureRequest) -> Iterator[Watcher]:
    lane, way = request.param
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython")
    with closing(Watcher(LANES[lane], way)) as watcher:
        if way == "events":
            watcher.need("events")
        yield watcher


def soon(watcher: Watcher, *pids: int, others: bool = False) -> list[Process]:
    """What is told of these processes, once something is of each; with `others`, of all."""
    found: list[Process] = []
    end = time.monotonic() + SOON_S
    while set(pids) - {process.pid for process in found} and time.monotonic() < end:
        time.sleep(0.3)  # a fork is one once it has had time to take up a program
        found += [process for process in watcher.processes() if others or process.pid in pids]
    return found


def test_a_command_is_one_exec(watcher: Watcher) -> None:
    child = subprocess.Popen(["sleep", "0.4321"])
    found = soon(watcher, child.pid)
    child.wait()
    found += [process for process in watcher.processes() if process.pid == child.pid]
    assert found == [Process(child.pid, os.getpid(), "sleep 0.4321", os.geteuid(), "exec")]


def test_what_goes_on_with_its_parents_program_is_a_fork(watcher: Watcher) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(0.5)
        os._exit(0)
    (process,) = soon(watcher, child)
    assert process.parent == os.getpid() and process.kind == "fork"
    os.waitpid(child, 0)


def test_threads_are_no_processes(watcher: Watcher) -> None:
    threads = [threading.Thread(target=time.sleep, args=(0.4,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    ids = {thread.native_id for thread in threads}
    child = subprocess.Popen(["sleep", "0.4322"])
    told = {process.pid for process in soon(watcher, child.pid, others=True)}
    assert child.pid in told and not told & {os.getpid(), *ids}
    child.wait()


def test_any_command_line_is_told(watcher: Watcher) -> None:
    strange = b"\xff\xfe \x01 " + "é".encode() + b"x" * 2000
    code = "import time; time.sleep(0.5)"
    child = subprocess.Popen([sys.executable, "-c", code, "marked", strange])
    (process,) = soon(watcher, child.pid)
    assert "marked" in process.line and len(process.line) <= 512
    child.wait()


def test_many_at_once_are_all_seen(watcher: Watcher) -> None:
    children = [subprocess.Popen(["sleep", "0.7654"]) for _ in range(40)]
    pids = [child.pid for child in children]
    assert sorted(process.pid for process in soon(watcher, *pids)) == sorted(pids)
    for child in children:
        child.wait()


def test_a_program_that_takes_anothers_place_is_told_by_events() -> None:
    with closing(Watcher(LANES["64"])) as watcher:
        watcher.need("events")
        script = "sleep 0.1; exec sleep 0.4323"
        with subprocess.Popen(["sh", "-c", script]) as child:
            child.wait()
        told = [process for process in watcher.processes() if process.pid == child.pid]
        assert [process.line for process in told] == [f"sh -c {script}", "sleep 0.4323"]
        assert {process.kind for process in told} == {"exec"}


def test_what_lives_for_some_milliseconds_is_seen_by_events() -> None:
    with closing(Watcher(LANES["64"])) as watcher:
        watcher.need("events")
        pids = []
        for _ in range(20):
            with subprocess.Popen(["sleep", "0.0056"]) as child:
                pids.append(child.pid)
        told = soon(watcher, *pids)
        assert sorted(process.pid for process in told) == sorted(pids)
        # The rest were gone before their command line could be read.
        assert sum(process.line == "sleep 0.0056" for process in told) >= 14


SILENT = """
import time
from vedette.ports import process_events
began = time.ticks_ms()
try:
    process_events.listen()
    print("tells")
except OSError:
    print(time.ticks_diff(time.ticks_ms(), began))
"""


def test_a_kernel_that_says_nothing_is_not_waited_for() -> None:
    apart = ["unshare", "--user", LANES["64"], "-c", SILENT]  # as in a container
    try:
        done = subprocess.run(apart, env=device_environment(), capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode or done.stdout == "tells\n":
        pytest.skip("the kernel makes no namespace of users, or tells in there too")
    assert int(done.stdout) < 300
