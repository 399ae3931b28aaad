"""The main job for an hour of simulated time, against a real hub.

Arguments: factor of time, code (`romfs:FILE` or `path:FOLDER`), connection string, CA (DER). Of a
folder, the result tells which files were loaded, those that were let go of again too. The
application sends datagrams to changing peers and talks to an HTTP server of its own. Prints the
heap in use, sampled after collections, without what there was before the agent was imported: this
script's own code, and the ROMFS image (which is flash on a board).
"""

import gc
import json
import os
import sys

import romcode
import vfs
import warp

_FACTOR = int(sys.argv[1])
_SECONDS = 3600

warp.faster(_FACTOR)


class Noting:
    """A file system: a folder, and which of its files were opened."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = set()

    def mount(self, readonly, mkfs):
        pass

    def stat(self, path):
        return os.stat(self.folder + path)

    def ilistdir(self, path):
        return os.ilistdir(self.folder + path)

    def open(self, path, mode):
        self.opened.add(path)
        return open(self.folder + path, mode)


def load_code(where):
    """Makes the agent importable from where it is; returns the files that are opened of it."""
    kind, _, place = where.partition(":")
    if kind == "romfs":
        romcode.load(place)
        return ()
    system = Noting(place)
    vfs.mount(system, "/code")
    sys.path.insert(0, "/code")
    return system.opened


opened = load_code(sys.argv[2])
gc.collect()
before = gc.mem_alloc()
from vedette import tap  # noqa: E402

tap.install()

import asyncio  # noqa: E402
import socket  # noqa: E402

import vedette  # noqa: E402


async def application(port):
    peers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    number = 0
    while True:
        for _ in range(10):
            number = (number + 1) % 4000
            host = "127.0.%d.%d" % (number // 250, number % 250 + 1)
            try:
                peers.sendto(b"reading", socket.getaddrinfo(host, port)[0][-1])
            except OSError:
                pass  # nobody listens there: a later call is told so
        await asyncio.sleep(5)


async def main():
    agent = vedette.start(connection_string=sys.argv[3], ca=[sys.argv[4]])
    asyncio.create_task(application(9))
    samples = []
    import time

    began = time.time()
    while time.time() - began < _SECONDS:
        await asyncio.sleep(120)
        gc.collect()
        if agent.client.connected:
            samples.append(gc.mem_alloc() - before)
    stats = agent.client.stats
    result = {
        "heap": samples,
        "acknowledged": [agent.sender.acknowledged],
        "connects": [stats["connects"]],
        "job_errors": [agent.scheduler.errors],
        "files": sorted(opened),
    }
    print(json.dumps(result))


asyncio.run(main())
