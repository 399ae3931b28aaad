"""How many acknowledged messages a second the local hub takes, and whether it keeps them all.

    .venv/bin/python tests/bench/hub_load.py [--devices 1000] [--messages 60000] [--window 10]

Starts a hub, connects the devices over TLS, and has each publish 600-byte messages at QoS 1 with a
window of messages in flight. Prints one line of JSON. Exit code 1 when a message is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import ssl
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hubfixture import LocalHub  # noqa: E402
from vedette_tools.connection import parse_connection_string  # noqa: E402
from vedette_tools.hub import sas  # noqa: E402

BODY_BYTES = 600
CONNECTS_AT_ONCE = 50


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + digits + body


class LoadDevice:
    """The few MQTT packets that this takes, written by hand: a client library would be the
    bottleneck."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self._key = key

    async def connect(self, hub: LocalHub, context: ssl.SSLContext) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            hub.host, hub.port, ssl=context, server_hostname=hub.host
        )
        token = sas.make(f"localhost/devices/{self.name}", self._key)
        fields = (self.name, f"localhost/{self.name}/?api-version=2021-04-12", token)
        self._writer.write(
            packet(0x10, text("MQTT") + b"\x04\xc2\x00\x00" + b"".join(map(text, fields)))
        )
        answer = await self._reader.readexactly(4)
        assert answer[3] == 0, f"{self.name}: CONNACK {answer[3]}"

    async def publish(self, messages: int, window: int) -> None:
        topic = text(f"devices/{self.name}/messages/events/")
        for first in range(0, messages, window):
            numbers = range(first, min(first + window, messages))
            self._writer.write(
                b"".join(
                    packet(
                        0x32,
                        topic
                        + (number % 65535 + 1).to_bytes(2, "big")
                        + str(number).encode().ljust(BODY_BYTES),
                    )
                    for number in numbers
                )
            )
            await self._reader.readexactly(4 * len(numbers))

    def close(self) -> None:
        self._writer.write(b"\xe0\x00")
        self._writer.close()


async def load(
    hub: LocalHub, devices: list[LoadDevice], each: int, window: int
) -> dict[str, float]:
    context = ssl.create_default_context(cafile=str(hub.ca))
    begin = time.perf_counter()
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect(device: LoadDevice) -> None:
        async with gate:
            await device.connect(hub, context)

    await asyncio.gather(*(connect(device) for device in devices))
    connected = time.perf_counter()
    await asyncio.gather(*(device.publish(each, window) for device in devices))
    published = time.perf_counter()
    for device in devices:
        device.close()
    return {
        "connects_per_s": round(len(devices) / (connected - begin)),
        "acknowledged_per_s": round(len(devices) * each / (published - connected)),
        "published_at": published,
    }


def memory_mb(*pids: int) -> float:
    """Resident memory of processes, peak."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("VmHWM:")[2].split()[0])
    return round(total / 1024, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=60000)
    parser.add_argument("--window", type=int, default=10)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = options.messages // options.devices
    expected = each * options.devices
    with tempfile.TemporaryDirectory() as directory:
        hub = LocalHub(Path(directory) / "hub")
        begin = time.perf_counter()
        hub.start()
        started = time.perf_counter() - begin
        try:
            devices = []
            for number in range(options.devices):
                fields = parse_connection_string(hub.create_device(f"load-{number}"))
                devices.append(LoadDevice(fields["DeviceId"], fields["SharedAccessKey"]))
            figures = asyncio.run(load(hub, devices, each, options.window))
            published_at = figures.pop("published_at")
            stored = 0
            while stored < expected and time.perf_counter() - published_at < 60:
                stored = hub.service.request("GET", "/vedette/statistics")["events"]
            stored_after = time.perf_counter() - published_at
            broker = hub.service.request("GET", "/vedette/processes")["broker"]
            figures |= {
                "start_s": round(started, 2),
                "stored": stored,
                "missing": expected - stored,
                "stored_after_s": round(stored_after, 2),
                "memory_mb": memory_mb(broker, hub.pid),
            }
        finally:
            hub.stop()
    print(json.dumps(figures))
    return 1 if figures["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
