"""An agent alone on Linux: its CPU beside other programs, and the share of processes it sees."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from agentbench import der, running_hub
from measures import LANES, ROOT, Budget, Samples, device_environment, measure
from suite_agent import cpu_seconds

WARM_UP_S = 5
RUN_S = 10
RUNS = 3
LIVES_MS = (1, 5, 20, 100)
COMMANDS = 100


@measure(
    Budget("linux.cpu_idle", "% of a core", 1, portable=False),
    Budget("linux.cpu_busy", "% of a core", 1, portable=False),
)
def cpu() -> Samples:
    with tempfile.TemporaryDirectory() as folder, running_hub(Path(folder)) as hub:
        config = {
            "connection_string": hub.create_device("linux"),
            "ca": str(der(hub.ca, Path(folder))),
        }
        (Path(folder) / "config.json").write_text(json.dumps(config))
        command = [LANES["64"], ROOT / "firmware/main.py"]
        with subprocess.Popen(command, cwd=folder, env=device_environment()) as process:
            try:
                time.sleep(WARM_UP_S)
                idle = shares(process.pid)
                with other_programs():
                    busy = shares(process.pid)
            finally:
                process.kill()
    return {"linux.cpu_idle": idle, "linux.cpu_busy": busy}


def shares(pid: int) -> list[float]:
    """The CPU that a process took, three times, in percent of a core."""
    samples = []
    for _ in range(RUNS):
        before = cpu_seconds(pid)
        time.sleep(RUN_S)
        samples.append((cpu_seconds(pid) - before) / RUN_S * 100)
    return samples


@contextlib.contextmanager
def other_programs() -> Iterator[None]:
    """Each second a command, a connection of 1 KB, and ten datagrams, meanwhile."""
    stop = threading.Event()

    def work() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            while not stop.wait(1):
                subprocess.run(["sleep", "0.01"], check=True)
                with socket.create_connection(server.getsockname()) as client:
                    client.sendall(b"x" * 1024)
                    server.accept()[0].close()
                for _ in range(10):
                    datagrams.sendto(b"x" * 64, ("127.0.0.1", 9))

    worker = threading.Thread(target=work)
    worker.start()
    yield
    stop.set()
    worker.join()


@measure(
    *[
        Budget(f"linux.{way}_{life}ms", "%", least, at_least=True, portable=False)
        for way, floors in (("events", (0, 90, 90, 90)), ("polling", (0, 0, 0, 90)))
        for life, least in zip(LIVES_MS, floors, strict=True)
    ],
)
def seen() -> Samples:
    """The share of commands that live so long whose command line is told."""
    samples = {}
    for way in ("events", "polling"):
        with subprocess.Popen(
            [LANES["64"], ROOT / "tests/device/linux_watch.py", way, "100"],
            env=device_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as watcher:
            assert watcher.stdin and watcher.stdout
            if json.loads(watcher.stdout.readline())["events"] != (way == "events"):
                raise RuntimeError(f"this kernel gives no process {way}")
            for life in LIVES_MS:
                line = f"sleep {life / 1000:f}"
                for _ in range(COMMANDS):
                    subprocess.run(line.split(), check=True)
                    time.sleep(0.013)  # in no step with the polling
                time.sleep(0.5)
                print("processes", file=watcher.stdin, flush=True)
                told = json.loads(watcher.stdout.readline())
                found = sum(process[2] == line for process in told)
                samples[f"linux.{way}_{life}ms"] = [found / COMMANDS * 100]
            watcher.stdin.close()
    return samples
