"""Runs the hub in the foreground: state directory, ports, TLS, signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import json
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from vedette_tools.hub import NAME, plugin, service
from vedette_tools.hub.broker import BrokerConfig
from vedette_tools.hub.certificates import Certificates
from vedette_tools.hub.enrolments import DEFAULT_GROUP
from vedette_tools.hub.errors import HubStartError
from vedette_tools.hub.files import write_private
from vedette_tools.hub.hub import Hub

CONNECTION_FILE = "hub.json"
LOCK_TIMEOUT_S = 3
MQTT_PORT = 8883  # the only one that Microsoft's device SDKs know
PROVISIONING_ADDRESS = "127.0.0.2"
LOCAL_ADDRESSES = ("127.0.0.1", "::1", "0.0.0.0", "::")  # those that localhost leads to

log = logging.getLogger("vedette.hub")


@dataclass(frozen=True)
class Options:
    state: Path
    listen: str
    mqtt_port: int
    https_port: int
    amqps_port: int | None  # None: no AMQP
    daily_quota: int | None  # None: no limit


def run(options: Options, ready: Callable[[dict[str, Any]], None]) -> None:
    """Run until SIGINT or SIGTERM; `ready` is called with what clients need to know.

    Errors: HubStartError.
    """
    os.umask(0o077)  # keys, tokens and messages are their owner's alone
    with _state_directory(options.state):
        _raise_file_limit()
        asyncio.run(_run(options, ready))


async def _run(options: Options, ready: Callable[[dict[str, Any]], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host = "localhost" if options.listen in LOCAL_ADDRESSES else options.listen
    mqtt_port = _choose_port(options.listen, options.mqtt_port, "--mqtt-port")
    https_port = _choose_port(options.listen, options.https_port, "--https-port")
    amqps_port = options.amqps_port
    if amqps_port is not None:
        amqps_port = _choose_port(options.listen, amqps_port, "--amqps-port")
    provisioning_host = _provisioning_address(options.listen, mqtt_port) or host
    library = plugin.build(plugin.cache_directory())
    certificates = Certificates(options.state)
    certificates.prepare(options.listen)
    listeners = [(options.listen, mqtt_port)]
    if provisioning_host != host:
        listeners.append((provisioning_host, mqtt_port))
    port = "" if mqtt_port == MQTT_PORT else f":{mqtt_port}"
    hub = Hub(
        options.state,
        BrokerConfig(options.state, library, certificates, listeners),
        device_host=host + port,
        provisioning_host=provisioning_host + port,
        daily_quota=options.daily_quota,
    )
    try:
        await hub.start()
        async with (
            _https(hub, certificates, options.listen, https_port),
            _amqps(hub, certificates, options.listen, amqps_port),
        ):
            connection = {
                "service_connection_string": f"HostName={host}:{https_port};"
                f"SharedAccessKeyName={service.POLICY};SharedAccessKey={hub.owner_key}",
                "ca": str(certificates.ca),
                "mqtt_host": host,
                "mqtt_port": mqtt_port,
                "https_port": https_port,
                **(_by_amqp(host, amqps_port, hub.owner_key) if amqps_port else {}),
                "dps_host": provisioning_host,
                "dps_port": mqtt_port,
                "dps_scope": hub.provisioning.scope,
                "dps_group_id": DEFAULT_GROUP,
                "dps_group_key": hub.provisioning.enrolments.group_key(DEFAULT_GROUP),
            }
            write_private(options.state / CONNECTION_FILE, json.dumps(connection).encode())
            ready(connection)
            await stop.wait()
    finally:
        await hub.stop()


def _by_amqp(host: str, port: int, key: str) -> dict[str, Any]:
    policy = f"SharedAccessKeyName={service.POLICY};SharedAccessKey={key}"
    return {
        "amqps_port": port,
        "event_hub_connection_string": f"Endpoint=sb://{host}/;{policy};EntityPath={NAME}",
    }


@contextlib.asynccontextmanager
async def _https(hub: Hub, certificates: Certificates, address: str, port: int) -> Any:
    context = _tls(certificates)
    runner = web.AppRunner(service.application(hub), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _amqps(hub: Hub, certificates: Certificates, address: str, port: int | None) -> Any:
    if port is None:
        yield
        return
    try:
        from vedette_tools.hub.amqp import AmqpServer
        from vedette_tools.hub.event_hub import EventHub
    except ImportError:
        raise HubStartError(
            "--amqps-port needs Qpid Proton: pip install 'vedette-tools[amqp]'"
        ) from None
    server = AmqpServer(
        functools.partial(service.opened_by, owner_key=hub.owner_key),
        hub.send_to_device,
        hub.feedback,
        EventHub(hub.database, hub.events),
    )
    await server.start(address, port, _tls(certificates))
    try:
        yield
    finally:
        server.stop()


def _tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    return context


@contextlib.contextmanager
def _state_directory(path: Path) -> Iterator[None]:
    """Make the directory, and hold it against a second hub. Errors: HubStartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (path / "lock").open("a")
    except OSError as error:
        raise HubStartError(f"cannot use {path} for the hub's state: {error.strerror}") from None
    with lock:
        # A hub that was killed leaves a broker that ends by itself within moments; it holds the
        # lock too, as its child.
        os.set_inheritable(lock.fileno(), True)
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HubStartError(
                        f"another hub runs with the state in {path}: end it, or choose another "
                        "directory with --state"
                    ) from None
                time.sleep(0.05)
        yield


def _raise_file_limit() -> None:
    """A connection is a file descriptor: allow as many as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _provisioning_address(address: str, port: int) -> str | None:
    """Where the provisioning service gets a listener of its own: device SDKs look for both on one
    port, so it needs an address of its own. None where the two share theirs."""
    if port != MQTT_PORT or not address.startswith("127."):
        return None
    try:
        _choose_port(PROVISIONING_ADDRESS, port, "--mqtt-port")
    except HubStartError:
        return None  # taken, or an address that this system has not
    return PROVISIONING_ADDRESS


def _choose_port(address: str, port: int, option: str) -> int:
    """`port` if it is free, or any free one for 0. Errors: HubStartError."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise HubStartError(
                    f"port {port} on {address} is taken: end what listens there, or choose "
                    f"another with {option} (0: any free one)"
                ) from None
            raise HubStartError(f"cannot listen on {address}:{port}: {error.strerror}") from None
        return int(probe.getsockname()[1])
