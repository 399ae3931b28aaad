"""`vedette demo`: a local hub, one agent and a sample application, shown as they work."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from vedette_tools.commands import simulate
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.options import AsJson
from vedette_tools.connection import HubConnection
from vedette_tools.errors import CommandError

DEVICE = "sample-board"
STARTUP_S = 20
STOP_S = 10
# Every three seconds instead of every two hours: a person is watching.
TWIN = {
    "microAgent": {
        "CollectorsCore_PriorityIntervals": "0.05,0.2,1",
        "NetworkActivity_MessageFrequency": "High",
        "Statistics_MessageFrequency": "Medium",
    }
}


@user_errors
def demo(
    seconds: Annotated[
        int | None, typer.Option(min=1, help="End after so long; 0 only if flows arrived.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a local hub and an agent with a sample application; show messages until Ctrl-C."""
    from vedette_tools.view import flows_in, show_message

    console = Console(stderr=as_json)
    state = simulate.ROOT / "build" / "demo"
    deadline = time.monotonic() + seconds if seconds else None
    flows = 0
    with contextlib.ExitStack() as running:
        connection = running.enter_context(_hub(state / "hub"))
        os.environ["VEDETTE_HUB"] = connection["service_connection_string"]
        os.environ["VEDETTE_HUB_CA"] = connection["ca"]
        os.environ["VEDETTE_HUB_MQTT_PORT"] = str(connection["mqtt_port"])
        device = _device()
        console.print(f"hub: MQTT/TLS on localhost:{connection['mqtt_port']}; device: {DEVICE}")
        console.print("waiting for the first message; Ctrl-C ends", style="dim")
        agent = running.enter_context(_agent(device, state / "board"))
        for record in _messages(running.enter_context(_events()), agent, deadline):
            flows += flows_in(record)
            if as_json:
                typer.echo(json.dumps(record))
            else:
                show_message(console, record)
    if not flows:
        raise CommandError("no message with flows arrived")
    console.print(f"{flows} flows arrived", style="bold green")


def _device() -> str:
    """The device's connection string; it is made anew, so that its twin is as it should be."""
    hub = HubConnection.find()
    with contextlib.suppress(CommandError):
        hub.request("DELETE", f"/devices/{DEVICE}", headers={"If-Match": "*"})
    record = hub.request("PUT", f"/devices/{DEVICE}", {"deviceId": DEVICE})
    hub.request("PATCH", f"/twins/{DEVICE}", {"properties": {"desired": TWIN}})
    return hub.device_connection_string(record)


@contextlib.contextmanager
def _hub(state: Path) -> Iterator[dict[str, Any]]:
    """A hub on free ports; yields what it prints once it is ready."""
    state.mkdir(parents=True, exist_ok=True)
    options = ("--state", str(state), "--mqtt-port", "0", "--https-port", "0", "--json")
    with _child("hub", "up", *options, stdout=subprocess.PIPE) as hub:
        lines: queue.Queue[bytes] = queue.Queue()
        assert hub.stdout is not None
        read = hub.stdout.readline
        threading.Thread(target=lambda: lines.put(read()), daemon=True).start()
        with contextlib.suppress(queue.Empty):
            if line := lines.get(timeout=STARTUP_S):
                yield json.loads(line)
                return
        raise CommandError("the local hub did not start")


@contextlib.contextmanager
def _agent(connection_string: str, board: Path) -> Iterator[subprocess.Popen[bytes]]:
    shutil.rmtree(board, ignore_errors=True)  # a new board: what an older run kept is not its own
    os.environ[simulate.DEVICE] = connection_string
    with _child("simulate", "--app", str(simulate.SAMPLE), "--state", str(board)) as agent:
        yield agent


@contextlib.contextmanager
def _events() -> Iterator[queue.Queue[bytes]]:
    """The device's messages as lines, from now on."""
    lines: queue.Queue[bytes] = queue.Queue()
    options = (
        "--follow",
        "--device",
        DEVICE,
        "--since",
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
    )
    with _child("hub", "events", *options, stdout=subprocess.PIPE) as events:

        def read() -> None:
            assert events.stdout is not None
            for line in events.stdout:
                lines.put(line)

        threading.Thread(target=read, daemon=True).start()
        yield lines


def _messages(
    lines: queue.Queue[bytes], agent: subprocess.Popen[bytes], deadline: float | None
) -> Iterator[dict[str, Any]]:
    """Records as they come, until the deadline or Ctrl-C. Errors: CommandError."""
    with contextlib.suppress(KeyboardInterrupt):
        while deadline is None or time.monotonic() < deadline:
            if agent.poll() is not None:
                raise CommandError(f"the agent ended with code {agent.returncode}")
            with contextlib.suppress(queue.Empty):
                yield json.loads(lines.get(timeout=0.2))


@contextlib.contextmanager
def _child(*arguments: str, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A `vedette` command that runs meanwhile, and is ended at the end."""
    command = [str(Path(sys.executable).with_name("vedette")), *arguments]
    # In a session of its own: Ctrl-C is for us, and we end the children in order.
    process = subprocess.Popen(command, stdout=stdout, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
