"""Device side of test_journal_kills.py: outbox, journal and sender of an agent that gets killed.

micropython journal_kill.py NUMBER [offline]   In the current folder; at write NUMBER to the file
system the first half of it is done, and the process gets SIGKILL. 0: never. Prints what happens,
a line each: `restored RECORD`, `added RECORD`, `acknowledged RECORD`, and around each save of the
journal `begin`, `done`. A RECORD is its Id and a sum of its content.
"""

import asyncio
import builtins
import os
import sys
from binascii import crc32, hexlify

from iothub import clock
from vedette import journal as journals
from vedette.outbox import Outbox
from vedette.sender import Sender
from vedette.settings import Settings

clock._seconds += 86400  # the device has been up for a day
_TURNS = 60
_TOLD = 64  # a flag of a record that nothing else uses
left = int(sys.argv[1])
online = len(sys.argv) == 2


def write(action, half):
    """Counts a write to the file system; does it, or half of it and no more."""
    global left
    left -= 1
    if left == 0:
        half()
        os.system("kill -9 $PPID")
    return action()


class File:
    def __init__(self, path, mode):
        self._file = write(lambda: builtins.open(path, mode), lambda: None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        half = memoryview(data)[: len(data) // 2]
        write(lambda: self._file.write(data), lambda: self._file.write(half))

    def flush(self):
        self._file.flush()


class Os:
    def rename(self, old, new):
        write(lambda: os.rename(old, new), lambda: None)


class Client:
    """Stands in for the hub client; loses its connection after each message."""

    connected = False

    async def send_stream(self, length, writer, properties):
        self.connected = False

        async def take(chunk):
            await asyncio.sleep_ms(0)

        await writer(take)


def tell(what, offset):
    identity = hexlify(outbox.header(offset)[-1]).decode()
    print(what, "%s-%08x" % (identity, crc32(outbox.content(offset))))


def acknowledge(offset):
    tell("acknowledged", offset)
    plain_acknowledge(offset)


async def save():
    errors = journal.errors
    print("begin")
    await plain_save()
    if journal.errors == errors:
        print("done")


async def rest():
    for _ in range(_TURNS):
        await asyncio.sleep_ms(0)


async def main():
    journal.load()
    for offset in outbox.entries():
        outbox.mark(offset, _TOLD)
        tell("restored", offset)
    tasks = [asyncio.create_task(part.run()) for part in (journal, sender)]
    for step in range(9):
        client.connected = step in (3, 4, 7) and online
        for number in range(step % 3 + 1):
            outbox.add([b'"Payload":[]' + b" " * (97 * step)], number, clock.uptime(), 60)
        for offset in outbox.entries():
            if not outbox.mark(offset, _TOLD):
                tell("added", offset)
        sender.wake()
        await rest()
    while online and outbox.count:
        client.connected = True
        sender.wake()
        await rest()
    for task in tasks:
        task.cancel()


client = Client()
outbox = Outbox(16384)  # nothing has to give way
settings = Settings({})
settings.apply({"Message_MaxSize": 4096})
sender = Sender(client, outbox, settings, "agent")
journal = journals.Journal("journal", outbox, sender.day)
journals.open = File
journals.os = Os()
plain_acknowledge, outbox.acknowledge = outbox.acknowledge, acknowledge
plain_save, journal.save = journal.save, save
asyncio.run(main())
