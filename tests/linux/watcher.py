"""A watcher: MicroPython with the agent's Linux parts, beside the programs of a test."""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, device_environment

PR_CAPBSET_DROP = 24
CAP_NET_RAW = 13
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
LIBC = ctypes.CDLL(None)


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """A network of the test's own, with the loopback only, so that nobody else talks in it.

    Where that is not allowed, the test has the machine's.
    """
    with open("/proc/self/ns/net") as before:
        apart = LIBC.unshare(CLONE_NEWNET) == 0
        try:
            if apart:
                with socket.socket() as any_socket:
                    up = struct.pack("16sh14x", b"lo", IFF_UP)
                    fcntl.ioctl(any_socket, SIOCSIFFLAGS, up)
        except PermissionError:  # CAP_SYS_ADMIN makes a network, but CAP_NET_ADMIN sets it up
            LIBC.setns(before.fileno(), CLONE_NEWNET)
            apart = False
        yield
        if apart:
            LIBC.setns(before.fileno(), CLONE_NEWNET)


def drop_capabilities() -> None:
    """Packets are not for an ordinary user, nor are they for the program that is run next."""
    LIBC.prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0)


class Flow(NamedTuple):
    protocol: str
    direction: str
    local: str | None
    local_port: int
    remote: str
    remote_port: int
    bytes_in: int
    bytes_out: int
    hits: int
    application: str | None = None


class Process(NamedTuple):
    pid: int
    parent: int | None
    line: str
    user: int | None
    kind: str


class Watcher:
    def __init__(self, program: Path, *arguments: str, ordinary: bool = False) -> None:
        self.program = program
        self.process = subprocess.Popen(
            [program, ROOT / "tests/device/linux_watch.py", *arguments],
            env=device_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=drop_capabilities if ordinary else None,
        )
        self.sees: dict[str, bool] = self._answer()

    def need(self, ability: str) -> None:
        if not self.sees[ability]:
            pytest.skip(f"this kernel does not let us see {ability}")

    def ask(self, command: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def flows(self, *ports: int) -> list[Flow]:
        """Drains the flow table: the flows that have one of these ports, sorted."""
        answer = self.ask("flows")
        assert answer["errors"] == 0
        flows = [Flow(*flow) for flow in answer["flows"]]
        chosen = [f for f in flows if {f.local_port, f.remote_port} & set(ports or [0])]
        return sorted(chosen, key=lambda flow: flow._replace(local=flow.local or ""))

    def processes(self) -> list[Process]:
        """The processes told of since the last time."""
        return [Process(*told) for told in self.ask("processes")]

    def _answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=5)
