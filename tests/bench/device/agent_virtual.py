"""The whole agent in simulated time that does not wait, with a hub that always acknowledges.

`day`: a day at default settings with 50 live flows and a baseline of three failures; prints the
metered units, and what the agent's state costs a flash with LittleFS: blocks erased, and bytes
written for each byte sent. `soak N`: N intervals with changing flows; prints the heap in use
after each tenth.
"""

import gc
import json
import sys

import warp

warp.jumping()

from vedette import tap  # noqa: E402

tap.install()

import asyncio  # noqa: E402

import vedette  # noqa: E402
import vfs  # noqa: E402
from flash import Flash  # noqa: E402
from vedette import collectors  # noqa: E402
from vedette.collectors import Base  # noqa: E402

_UNIT = 4096
_BLOCKS = 256  # of 4 KB
_HOST = b"\x0a\x00\x00\x07"


class Hub:
    """Stands in for the hub client: connected, quick, and it loses nothing."""

    connected = True
    last_error = None

    def __init__(self, desired):
        self.stats = {"connects": 1}
        self.messages = 0
        self.units = 0
        self.bytes = 0
        self._desired = desired
        self._watcher = None

    def on_connection(self, callback):
        callback(True, None)

    def on_desired(self, callback):
        callback({"microAgent": self._desired}, 1, True)

    def on_method(self, name, handler):
        pass

    def forget(self, callback):
        pass

    async def report(self, patch):
        return 1

    async def send_stream(self, length, writer, properties=None, timeout=60):
        self.written = 0
        await writer(self._write)
        if self.written != length:
            raise ValueError("%d bytes of %d" % (self.written, length))
        self.messages += 1
        self.bytes += length
        self.units += (length + _UNIT - 1) // _UNIT

    async def _write(self, chunk):
        self.written += len(chunk)


class Baseline(Base):
    """Three checks that fail, as long as a check's texts are."""

    name = event = "Baseline"
    event_type = "Security"
    columns = "check_id,result,error,description,remediation,severity"

    async def collect(self):
        row = ["MPY-UNIX-Network-2.1", "Fail", None, "x" * 80, "y" * 160, "High"]
        await self.emit(self.columns, [row, row, row])


class Found:
    Collector = Baseline


def sight(first, count, repeat=1):
    """Opens TCP flows with this many bytes; the same ones again are hits."""
    for number in range(first, first + count):
        remote = b"\x5d\xb8" + bytes([number >> 8 & 255, number & 255])
        for _ in range(repeat):
            token = tap.table.open(6, 1, _HOST, 40000 + number % 20000, remote, 443, 3)
            tap.table.count_out(token, 600)
            tap.table.count_in(token, 2400)


async def day():
    sys.modules["vedette.collectors.baseline"] = Found
    collectors.baseline = Found
    hub = Hub({})
    flash = Flash(_BLOCKS)
    vfs.VfsLfs2.mkfs(flash)
    vfs.mount(vfs.VfsLfs2(flash), "/flash")
    flash.erases = flash.programmed = 0
    agent = vedette.start(client=hub, state="/flash/state")
    for _ in range(24 * 60):
        sight(0, 50)
        await asyncio.sleep(60)
    await agent.stop()
    result = {"units": hub.units, "messages": hub.messages, "erases": flash.erases}
    result["written_per_sent"] = flash.programmed / hub.bytes
    print(json.dumps({name: [value] for name, value in result.items()}))


async def soak(intervals):
    hub = Hub(
        {
            "CollectorsCore_PriorityIntervals": "0.05,0.1,60",
            "NetworkActivity_MessageFrequency": "High",
        }
    )
    vedette.start(client=hub)
    samples = [0] * 10  # of its full size from the start: it is in the heap too
    for number in range(intervals):
        if number % (intervals // 10) == intervals // 10 - 1:
            gc.collect()
            samples[number * 10 // intervals] = gc.mem_alloc()
        sight(number * 3 % 60000, 3)
        await asyncio.sleep(3)
    print(json.dumps({"heap": samples, "messages": [hub.messages]}))


if sys.argv[1] == "day":
    asyncio.run(day())
else:
    asyncio.run(soak(int(sys.argv[2])))
