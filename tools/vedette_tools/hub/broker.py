"""The broker: a stock mosquitto with the hub's plugin, run as the hub's child process.

Four ways lead between the two: the plugin asks about each CONNECT over a Unix socket, and says
there that the spool has grown; the hub sends its orders as MQTT publishes over a second Unix
socket, which wakes the broker at once; and the broker's log tells which client has acknowledged a
message, as no event of the plugin interface does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vedette_tools.hub.broker_link import BrokerLink
from vedette_tools.hub.certificates import Certificates
from vedette_tools.hub.errors import HubStartError
from vedette_tools.hub.plugin_socket import ConnectRequest, PluginProtocol

log = logging.getLogger("vedette.hub.broker")

START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 5
RESTART_PAUSE_S = 0.5
PACKET_MAX = 256 * 1024 + 64 * 1024 + 16  # the largest payload, and the longest topic
ERRORS_KEPT = 5  # of the first that a broker logs, for the message that it did not start
LOG_BYTES = 1 << 18

_HUB_PATH = "$hub"
_TOLD = re.compile(
    rb"^Received PUBACK from (?P<client>\S+) \(Mid: \d+|^(?P<error>(?:Error|vedette:).*)", re.M
)

Listener = tuple[str, int]  # address, port


@dataclass(frozen=True)
class BrokerConfig:
    directory: Path  # of the state: holds the configuration and the spool
    plugin: Path  # the compiled plugin
    certificates: Certificates
    listeners: list[Listener]  # where devices connect: the hub's, and others


@dataclass(frozen=True)
class BrokerEvents:
    """What the broker calls back, all on the event loop."""

    admit: Callable[[ConnectRequest], str | None]  # a session's name, or None: refused
    spooled: Callable[[], None]
    will: Callable[[str, bytes], None]  # topic, payload
    acknowledged: Callable[[str], None]  # client id; its oldest unacknowledged QoS 1 message
    died: Callable[[], None]  # all sessions are gone


class Broker:
    def __init__(self, config: BrokerConfig, events: BrokerEvents) -> None:
        self._config = config
        self._events = events
        self._secret = secrets.token_urlsafe(24)
        self._link = BrokerLink(_HUB_PATH, self._secret, events.will)
        self._process: asyncio.subprocess.Process | None = None
        self._runtime: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        running = self._process and self._process.returncode is None
        return self._process.pid if self._process and running else None

    @property
    def socket(self) -> str:
        """The path of the Unix socket on which it listens, besides its listeners."""
        return self._path("broker")

    async def start(self, next_spool: Callable[[], int]) -> None:
        """Start, and start again whenever it dies, until `stop`. Errors: HubStartError."""
        # Not in the state directory: a Unix socket's path may have 104 bytes at most.
        self._runtime = tempfile.TemporaryDirectory(prefix="vedette-")
        self._next_spool = next_spool
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: PluginProtocol(self._admit, self._events.spooled), self._path("hub")
        )
        await self._launch(self._config.listeners)
        self._watch = asyncio.create_task(self._supervise(self._config.listeners))

    async def stop(self) -> None:
        await self.suspend()
        if self._server:
            self._server.close()
        if self._runtime:
            self._runtime.cleanup()

    async def suspend(self) -> None:
        """End the broker, until `resume`."""
        if self._watch:
            self._watch.cancel()
        if self._process and self._process.returncode is None:
            self.stall(False)
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._link.close()
        self._events.died()

    async def resume(self, listener: Listener | None = None) -> None:
        """Start the broker, with the hub's listener elsewhere than configured where `listener` is
        given; if need be, go on trying."""
        listeners = self._config.listeners
        if listener:
            listeners = [listener, *listeners[1:]]
        try:
            await self._launch(listeners)
        except HubStartError as error:
            log.error("%s", error)
        self._watch = asyncio.create_task(self._supervise(listeners))

    def stall(self, stalled: bool) -> None:
        """Have the broker stand still, with all connections open, or go on."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP if stalled else signal.SIGCONT)

    def deliver(self, client_id: str, topic: str, payload: bytes, qos: int = 0) -> None:
        """Send one client, and only that one, a message."""
        header = bytes([qos]) + client_id.encode() + b"\0" + topic.encode() + b"\0"
        self._link.order(f"{_HUB_PATH}/deliver", header + payload)

    def kick(self, session_name: str) -> None:
        """Close a session's connection, if it is still open."""
        self._link.order(f"{_HUB_PATH}/kick", session_name.encode())

    def _admit(self, request: ConnectRequest) -> str | None:
        if request.client_id == self._secret and request.password == self._secret:
            return f"- {_HUB_PATH}"
        return self._events.admit(request)

    async def _supervise(self, listeners: list[Listener]) -> None:
        while True:
            assert self._process
            status = await self._process.wait()
            log.warning("the broker ended (status %s): starting it again", status)
            self._link.close()
            self._events.died()
            while True:
                await asyncio.sleep(RESTART_PAUSE_S)
                try:
                    await self._launch(listeners)
                    break
                except HubStartError as error:
                    log.error("%s", error)

    async def _launch(self, listeners: list[Listener]) -> None:
        path = self._config.directory / "mosquitto.conf"
        path.write_text(self._configuration(listeners))
        process = await asyncio.create_subprocess_exec(
            _mosquitto(),
            "-c",
            str(path),
            close_fds=False,  # the lock of the state directory goes along
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LOG_BYTES,
        )
        self._process = process
        errors: list[str] = []
        self._reader = asyncio.create_task(self._read_log(process, errors))
        if not await self._link.connect(
            self.socket, lambda: process.returncode is None, START_TIMEOUT_S
        ):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await self._reader
            raise HubStartError("the broker did not start: " + ("; ".join(errors) or "no word"))

    async def _read_log(self, process: asyncio.subprocess.Process, errors: list[str]) -> None:
        assert process.stderr
        rest = b""
        while chunk := await process.stderr.read(LOG_BYTES):
            lines, _, rest = (rest + chunk).rpartition(b"\n")
            for match in _TOLD.finditer(lines):
                if match["client"]:
                    self._events.acknowledged(match["client"].decode())
                else:
                    errors[ERRORS_KEPT:] = [match["error"].decode(errors="replace")]
                    log.error("%s", errors[-1])

    def _path(self, name: str) -> str:
        assert self._runtime
        return f"{self._runtime.name}/{name}"

    def _configuration(self, listeners: list[Listener]) -> str:
        config, certificates = self._config, self._config.certificates
        lines = [
            f"user {pwd.getpwuid(os.getuid()).pw_name}",
            "persistence false",
            "log_dest stderr",
            "log_type error",
            "log_type debug",
            "log_timestamp false",
            "connection_messages false",
            "allow_anonymous false",
            "set_tcp_nodelay true",
            "sys_interval 0",
            f"max_packet_size {PACKET_MAX}",
            f"plugin {config.plugin}",
            f"plugin_opt_hub {self._path('hub')}",
            f"plugin_opt_spool {config.directory / 'spool'}",
            f"plugin_opt_spool_number {self._next_spool()}",
            f"listener 0 {self.socket}",
            "max_qos 1",
        ]
        for address, port in listeners:
            lines += [
                f"listener {port} {address}",
                "max_qos 1",
                f"certfile {certificates.server}",
                f"keyfile {certificates.server_key}",
                "tls_version tlsv1.2",
            ]
        return "\n".join(lines) + "\n"


def _mosquitto() -> str:
    places = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
    path = shutil.which("mosquitto", path=places)
    if path is None:
        raise HubStartError("mosquitto is not installed: install the package mosquitto")
    return path
