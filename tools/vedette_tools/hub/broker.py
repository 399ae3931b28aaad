"""The broker: a stock mosquitto with the hub's plugin, run as the hub's child process.

Four ways lead between the two: the plugin asks about each CONNECT over a Unix socket, and says
there that the spool has grown; the hub sends its orders as MQTT publishes over a second Unix
socket, which wakes the broker at once; and the broker's log tells which client has acknowledged a
message, as no event of the plugin interface does.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pwd
import re
import secrets
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from vedette_tools.hub.certificates import Certificates
from vedette_tools.hub.errors import HubStartError

log = logging.getLogger("vedette.hub.broker")

START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 5
RESTART_PAUSE_S = 0.5
PACKET_MAX = 256 * 1024 + 64 * 1024 + 16  # the largest payload, and the longest topic
MQTT_3_1_1 = 4

ERRORS_KEPT = 5  # of the first that a broker logs, for the message that it did not start
LOG_BYTES = 1 << 18

_HUB_PATH = "$hub"
_TOLD = re.compile(
    rb"^Received PUBACK from (?P<client>\S+) \(Mid: \d+|^(?P<error>(?:Error|vedette:).*)", re.M
)


class ConnectRequest(NamedTuple):
    """A client's CONNECT, as the plugin puts it to the hub."""

    client_id: str
    username: str
    password: str
    clean: bool

    def __repr__(self) -> str:  # never the password
        return f"ConnectRequest({self.client_id!r}, {self.username!r})"


@dataclass(frozen=True)
class BrokerConfig:
    directory: Path  # of the state: holds the configuration and the spool
    plugin: Path  # the compiled plugin
    certificates: Certificates
    listen: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class BrokerEvents:
    """What the broker calls back, all on the event loop."""

    admit: Callable[[ConnectRequest], str | None]  # a session's name, or None: refused
    spooled: Callable[[], None]
    will: Callable[[str, bytes], None]  # topic, payload
    acknowledged: Callable[[str], None]  # client id; its oldest unacknowledged QoS 1 message
    died: Callable[[], None]  # all sessions are gone; it is being started again


class Broker:
    def __init__(self, config: BrokerConfig, events: BrokerEvents) -> None:
        self._config = config
        self._events = events
        self._secret = secrets.token_urlsafe(24)
        self._process: asyncio.subprocess.Process | None = None
        self._link: mqtt.Client | None = None
        self._early: list[tuple[str, bytes]] = []  # orders from before the link was up
        self._runtime: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self, next_spool: Callable[[], int]) -> None:
        """Start, and start again whenever it dies, until `stop`. Errors: HubStartError."""
        # Not in the state directory: a Unix socket's path may have 104 bytes at most.
        self._runtime = tempfile.TemporaryDirectory(prefix="vedette-")
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _PluginProtocol(self._admit, self._events.spooled), self._path("hub")
        )
        await self._launch(next_spool())
        self._watch = asyncio.create_task(self._supervise(next_spool))

    async def stop(self) -> None:
        if self._watch:
            self._watch.cancel()
        self._unlink()
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._server:
            self._server.close()
        if self._runtime:
            self._runtime.cleanup()

    def deliver(self, client_id: str, topic: str, payload: bytes, qos: int = 0) -> None:
        """Send one client, and only that one, a message."""
        header = bytes([qos]) + client_id.encode() + b"\0" + topic.encode() + b"\0"
        self._order("deliver", header + payload)

    def kick(self, session_name: str) -> None:
        """Close a session's connection, if it is still open."""
        self._order("kick", session_name.encode())

    def _order(self, what: str, payload: bytes) -> None:
        if self._link:
            self._link.publish(f"{_HUB_PATH}/{what}", payload)
        else:
            self._early.append((what, payload))

    def _admit(self, request: ConnectRequest) -> str | None:
        if request.client_id == self._secret and request.password == self._secret:
            return f"- {_HUB_PATH}"
        return self._events.admit(request)

    async def _supervise(self, next_spool: Callable[[], int]) -> None:
        while True:
            assert self._process
            status = await self._process.wait()
            log.warning("the broker ended (status %s): starting it again", status)
            self._unlink()
            self._early.clear()
            self._events.died()
            while True:
                await asyncio.sleep(RESTART_PAUSE_S)
                try:
                    await self._launch(next_spool())
                    break
                except HubStartError as error:
                    log.error("%s", error)

    async def _launch(self, spool_number: int) -> None:
        config = self._config.directory / "mosquitto.conf"
        config.write_text(self._configuration(spool_number))
        self._process = await asyncio.create_subprocess_exec(
            _mosquitto(),
            "-c",
            str(config),
            close_fds=False,  # the lock of the state directory goes along
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LOG_BYTES,
        )
        errors: list[str] = []
        reader = asyncio.create_task(self._read_log(self._process, errors))
        self._link = await self._connect_link()
        if self._link is None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            await reader
            raise HubStartError("the broker did not start: " + ("; ".join(errors) or "no word"))
        early, self._early = self._early, []
        for what, payload in early:
            self._order(what, payload)

    async def _connect_link(self) -> mqtt.Client | None:
        loop = asyncio.get_running_loop()
        connected = asyncio.Event()
        will = self._events.will

        def on_connect(client: mqtt.Client, *_: object) -> None:
            # Devices' publishes never come this way: only the wills, which the broker itself
            # publishes.
            client.subscribe("devices/#", qos=1)
            loop.call_soon_threadsafe(connected.set)

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            loop.call_soon_threadsafe(will, message.topic, bytes(message.payload))

        link = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._secret,
            protocol=MQTTProtocolVersion.MQTTv311,
            transport="unix",
        )
        link.username_pw_set(_HUB_PATH, self._secret)
        link.max_queued_messages_set(0)
        link.on_connect = on_connect
        link.on_message = on_message
        for _ in range(START_TIMEOUT_S * 50):
            assert self._process
            if self._process.returncode is not None:
                return None
            try:
                await loop.run_in_executor(None, link.connect, self._path("broker"), 1, 0)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            link.loop_start()
            await asyncio.wait_for(connected.wait(), START_TIMEOUT_S)
            return link
        return None

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

    def _unlink(self) -> None:
        if self._link:
            self._link.disconnect()
            self._link.loop_stop()
            self._link = None

    def _path(self, name: str) -> str:
        assert self._runtime
        return f"{self._runtime.name}/{name}"

    def _configuration(self, spool_number: int) -> str:
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
            f"plugin_opt_spool_number {spool_number}",
            f"listener 0 {self._path('broker')}",
        ]
        for address in config.listen:
            lines += [
                f"listener {config.port} {address}",
                "max_qos 1",
                f"certfile {certificates.server}",
                f"keyfile {certificates.server_key}",
                "tls_version tlsv1.2",
            ]
        return "\n".join(lines) + "\n"


class _PluginProtocol(asyncio.Protocol):
    """The hub's end of the plugin's socket: "W" is a wake, "A" a question about a CONNECT."""

    _LENGTH = struct.Struct("=I")

    def __init__(
        self, admit: Callable[[ConnectRequest], str | None], spooled: Callable[[], None]
    ) -> None:
        self._admit = admit
        self._spooled = spooled
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        woken = False
        while self._buffer:
            if self._buffer[0] == ord("W"):
                woken = True
                del self._buffer[0]
                continue
            head = 1 + self._LENGTH.size
            if len(self._buffer) < head:
                break
            end = head + self._LENGTH.unpack_from(self._buffer, 1)[0]
            if len(self._buffer) < end:
                break
            question = bytes(self._buffer[head:end])
            del self._buffer[:end]
            answer = (self._answer(question) or "").encode()
            self._transport.write(struct.pack("=H", len(answer)) + answer)
        if woken:
            self._spooled()

    def _answer(self, question: bytes) -> str | None:
        try:
            client_id, username, password, clean, version = (
                part.decode() for part in question.split(b"\0")[:5]
            )
        except ValueError:
            return None
        if int(version) != MQTT_3_1_1:
            log.info("%s refused: MQTT 3.1.1 is what is spoken here", client_id)
            return None
        return self._admit(ConnectRequest(client_id, username, password, clean == "1"))


def _mosquitto() -> str:
    places = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
    path = shutil.which("mosquitto", path=places)
    if path is None:
        raise HubStartError("mosquitto is not installed: install the package mosquitto")
    return path


def choose_port(addresses: tuple[str, ...], port: int, what: str) -> int:
    """`port` if it is free on all addresses, or any free one for 0. Errors: HubStartError."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise HubStartError(
                        f"port {port} on {address} is taken: end what listens there, or choose "
                        f"another with {what} (0: any free one)"
                    ) from None
                raise HubStartError(
                    f"cannot listen on {address}:{port}: {error.strerror}"
                ) from None
            port = probe.getsockname()[1]
    return port
