"""Keeps on flash what the outbox holds, so that a reset at any moment loses nothing.

One file, little endian: `day u32 | messages u32 | units u32 | bytes u32`, which are the sender's
counters of the day, then the outbox's records; each of them has its CRC-32 behind it. A new record
is appended. After any other change the file is written anew beside itself and renamed: it is never
longer than what the outbox can hold, and what was acknowledged is gone from it.
"""

import asyncio
import os
import struct
from binascii import crc32

from micropython import const

from . import cold, log
from .outbox import KEPT

_CHUNK = const(512)  # written in a row before the application's tasks have their turn


class Journal:
    """`day` is a list of four counters that are kept with the records.

    `errors` counts writes that failed, and damage that was found at the start.
    """

    def __init__(self, path, outbox, day):
        self._path = path
        self.outbox = outbox
        self._day = day
        self._saved = -1  # the outbox's revision that the file has; -1: it must be written anew
        self.errors = 0

    def load(self):
        """Fills the outbox, which is empty yet, with what the file holds, and `day`."""
        damaged = cold.call("restore", "load", self._path, self.outbox, self._day)
        if damaged:
            self.errors = damaged
            log.warning("the journal was damaged in %d places; the rest is kept" % damaged)
        elif damaged == 0:
            self._saved = self.outbox.revision

    async def run(self):
        """Runs for ever; what cannot be written stays in the outbox alone."""
        while True:
            await self.outbox.changed.wait()
            self.outbox.changed.clear()
            await self.save()

    async def save(self):
        """Makes the file hold what the outbox holds."""
        outbox = self.outbox
        outbox.hold()
        try:
            outbox.stamp()
            revision = outbox.revision
            anew = revision != self._saved
            self._saved = -1  # until all of it went well
            path = self._path + ".new" if anew else self._path
            with open(path, "wb" if anew else "ab") as file:
                if anew:
                    await _put(file, struct.pack("<4I", *self._day))
                for offset in outbox.entries():
                    if not outbox.mark(offset, KEPT) or anew:  # the mark is written with it
                        await _put(file, outbox.record(offset))
                file.flush()  # to the medium, also where closing is no promise
            if anew:
                os.rename(path, self._path)
            self._saved = revision
        except Exception as error:  # flash that is full or failing, no heap: it is tried again
            self.errors += 1
            log.failed("the journal", error)
        finally:
            outbox.release()


async def _put(file, data):
    crc = 0
    for at in range(0, len(data), _CHUNK):
        piece = data[at : at + _CHUNK]
        crc = crc32(piece, crc)
        file.write(piece)
        await asyncio.sleep_ms(0)
    file.write(struct.pack("<I", crc))
