"""256 flows of the reference set: bytes on the wire, and the heap that sending them takes.

The heap is what has to be free, beyond what is in use before and after, for the event to be
collected, rendered and handed to the client: everything else is filled up, and a run that raises
MemoryError needed more. Arguments: `size` or `heap`, and a ROMFS image with the code.
"""

import asyncio
import gc
import json
import sys

import romcode

romcode.load(sys.argv[2])

import flowtable  # noqa: E402
from reference_flows import INTERVAL, flows  # noqa: E402
from vedette import tap  # noqa: E402

tap.install()

from iothub import clock  # noqa: E402
from nettap import protocols, sockets  # noqa: E402
from vedette import ports, settings  # noqa: E402
from vedette.outbox import Outbox  # noqa: E402
from vedette.sender import Sender  # noqa: E402

_STEP = 128


class Sink:
    """A client that is always connected and counts what it is given."""

    connected = True
    total = 0

    async def send_stream(self, length, writer, properties=None, timeout=60):
        self.total = 0
        await writer(self.write)
        if self.total != length:
            raise ValueError("%d bytes of %d" % (self.total, length))

    async def write(self, chunk):
        self.total += len(chunk)


class Agent:
    """As much of the agent as the collector asks for."""

    objects = False

    def __init__(self, settings, outbox):
        self.settings = settings
        self.outbox = outbox
        self.since = {}
        self.counters = {"events_collected": 0, "collections_deferred": 0}


def fill(table, names):
    """Puts the reference set into the table."""
    codes = {protocols.app_name(code): code for code in range(32)}
    for flow in flows():
        protocol, direction, app, laddr, lport, raddr, rport, received, sent, hits = flow[:10]
        table.tick(flow[10])
        token = 0
        for number in range(hits):
            token = table.open(protocol, direction, laddr, lport, raddr, rport, codes[app])
            if number == hits - 1:
                table.tick(flow[11])
            if protocol == flowtable.UDP:
                last = number == hits - 1
                table.count_in(token, received if last else 0)
                table.count_out(token, sent if last else 0)
        if protocol != flowtable.UDP:
            table.count_in(token, received)
            table.count_out(token, sent)
        if flow[12]:
            names[raddr] = flow[12]


class Bench:
    def __init__(self):
        from vedette.collectors import network_activity

        self.sink = Sink()
        self.settings = settings.Settings(ports.load().defaults())
        self.outbox = Outbox(8192)
        self.agent = Agent(self.settings, self.outbox)
        self.sender = Sender(
            self.sink, self.outbox, self.settings, "0" * 8 + "-0000" * 4 + "0" * 8
        )
        self.collector = network_activity.Collector(self.agent)
        self.names = {}
        for name in dir(tap):  # the linker has given it another
            if getattr(tap, name) is sockets.host_name:
                setattr(tap, name, self.names.get)

    def prepare(self):
        self.agent.since["NetworkActivity"] = clock.uptime() - INTERVAL
        fill(tap.table, self.names)
        assert tap.table.live == 256

    async def send(self):
        if not self.collector.hand_over():
            raise ValueError("no room in the outbox")
        await self.sender.flush()
        assert self.outbox.count == 0


def ballast(leave):
    """Takes all of the heap but one piece of `leave` bytes."""
    gc.collect()
    room = bytearray(leave)
    kept = None
    size = 4096
    while size >= 16:
        try:
            kept = (kept, bytearray(size))
        except MemoryError:
            size //= 2
    del room
    gc.collect()
    return kept


async def works(bench, leave):
    bench.prepare()
    kept = ballast(leave)
    try:
        await bench.send()
        return True
    except MemoryError:
        del kept
        gc.collect()
        if tap.table.live == 0 and bench.outbox.count == 0:
            raise
        tap.table.clear()
        await bench.sender.flush()
        return False


async def main():
    bench = Bench()
    bench.prepare()
    await bench.send()
    if sys.argv[1] == "size":
        print(json.dumps({"bytes": [bench.sink.total / 256]}))
        return
    samples = []
    for _ in range(3):
        low, high = 0, 32768
        while high - low > _STEP:
            middle = (low + high) // 2
            if await works(bench, middle):
                high = middle
            else:
                low = middle
        samples.append(high)
    print(json.dumps({"heap": samples}))


asyncio.run(main())
