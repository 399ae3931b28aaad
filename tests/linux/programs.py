"""Real programs that talk over the loopback, each on ports of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 10.0


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(*command: str | Path, port: int) -> Iterator[int]:
    """A server, once it listens; yields its process id."""
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)
    try:
        end = time.monotonic() + START_S
        while not listens(port):
            assert process.poll() is None and time.monotonic() < end, command
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    """Whether a socket does: a connection to try it would be one more flow."""
    return any(
        fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if (fields := line.split())
    )


@contextmanager
def http_server(folder: Path, host: str) -> Iterator[tuple[int, int]]:
    """Python's; yields its process id and its port."""
    port = free_port(host)
    command = [sys.executable, "-m", "http.server", str(port), "-b", host, "-d", str(folder)]
    with running(*command, port=port) as pid:
        yield pid, port


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[int, int, list[str]]]:
    """An sshd; yields its process id, its port, and how to run a command there."""
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service does
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\n"
    )
    user = pwd.getpwuid(os.geteuid()).pw_name
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    client = ["ssh", "-F", "none", "-i", str(folder / "user"), "-p", str(port)]
    client += [word for option in options for word in ("-o", option)] + [f"{user}@127.0.0.1"]
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin") or "sshd"  # it wants its full name
    with running(sshd, "-D", "-f", config, port=port) as pid:
        yield pid, port, client


class Answer(socketserver.DatagramRequestHandler):
    """Every name has the address 192.0.2.1 (RFC 1035, 4.1)."""

    def handle(self) -> None:
        question = self.rfile.read()
        end = question.index(b"\0", 12) + 5  # past its name, type and class
        counts = struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH4B", 1, 1, 60, 4, 192, 0, 2, 1)
        self.wfile.write(question[:2] + counts + question[12:end] + record)


@contextmanager
def name_server() -> Iterator[int]:
    """Yields its port."""
    with socketserver.UDPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
