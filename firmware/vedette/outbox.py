"""What the hub has not acknowledged yet: one preallocated arena, oldest first.

A record is one collection, not a message. It stands by itself, little endian:

    size u16 | version u8 | kind u8 | priority u8 | flags u8 | parts u8 | done u8 | rows u16
    | text u16 | when u32 | interval u32 | Id 16 bytes | content, padded to a multiple of 4

It makes `parts` events, of which the first `done` were acknowledged; each has `rows` rows, the
last the rest. `size` is that of the whole record, `text` the length of the JSON text that begins
the content, `when` the time of collection: uptime in seconds, or seconds since 1970 once STAMPED.
The Id is the first part's. The journal keeps these bytes, and a later agent may read them: what
changes a record or its content raises VERSION.
"""

import asyncio
import os
import struct

from iothub import clock
from micropython import const

TEXT = const(0)  # the content is text alone
FLOWS = const(1)  # text, then what `flows.take` wrote

STAMPED = const(1)
OBJECTS = const(2)  # rows are rendered as objects, not columns
TRIED = const(4)  # was in a message before
KEPT = const(8)  # is in the journal
_DEAD = const(128)  # forgotten; its bytes go with the next compaction

HEADER = const(36)
FORMAT = "<HBBBBBBHHII16s"
VERSION = const(2)

_PRIORITY = const(4)
_FLAGS = const(5)
_PARTS = const(6)
_DONE = const(7)
_WHEN = const(12)
_ALL = (0, 1, 2)


def _padded(size):
    return HEADER + size + 3 & ~3


class Outbox:
    """Bounded by `size` bytes, 2048 to 65535. Nothing here waits or raises for want of room.

    `count` is of records; `dropped` counts those that made room for one of higher priority,
    `expired` those that grew too old; `high_water` is in bytes.
    While there are `holds`, nothing moves, and nothing can make room for another.
    For the journal, `changed` is an event set by each new record, and `revision` grows with every
    other change to one.
    """

    def __init__(self, size):
        self.room = (size & ~3) - HEADER  # for the content of a record, when it is empty
        self._arena = memoryview(bytearray(size))
        self._used = 0
        self.holds = 0
        self.changed = asyncio.Event()
        self.revision = 0
        self.count = 0
        self.high_water = 0
        self.dropped = 0
        self.expired = 0

    def reserve(self, size, *fields):
        """Returns a view of `size` bytes for a record's content, or None where there is no room.

        `fields` are those of the record's header from `kind` to Id. Records of lower priority are
        dropped, the oldest of the lowest first, if that makes room. Nothing is taken until
        `commit`. The view begins at a multiple of 4.
        """
        size = _padded(size)
        free = len(self._arena) - self._used
        if size > free and not self.holds:
            lower = range(2, fields[1], -1)
            if size <= free + sum(self._size(offset) for offset in self.entries(lower)):
                for offset in self.entries(lower):
                    if size > free:
                        free += self._size(offset)
                        self.dropped += 1
                        self.forget(offset)
                self._compact()
        if size > free:
            return None
        struct.pack_into(FORMAT, self._arena, self._used, size, VERSION, *fields)
        return self._arena[self._used + HEADER : self._used + size]

    def commit(self, size, parts=0):
        """Makes a record of the first `size` bytes of the view that was reserved last.

        `parts`, if given, stands in place of what was reserved. Takes no heap, so that it cannot
        fail.
        """
        size = _padded(size)
        if parts:
            self._arena[self._used + _PARTS] = parts
        self._arena[self._used] = size & 255
        self._arena[self._used + 1] = size >> 8
        self._used += size
        self.count += 1
        if self._used > self.high_water:
            self.high_water = self._used
        self.changed.set()

    def add(self, pieces, priority, when, interval):
        """Adds a record of text alone, a list of bytes. Returns False where it has no room."""
        size = sum([len(piece) for piece in pieces])
        identity = os.urandom(16)
        view = self.reserve(size, TEXT, priority, 0, 1, 0, 0, size, when, interval, identity)
        if view is None:
            return False
        at = 0
        for piece in pieces:
            view[at : at + len(piece)] = piece
            at += len(piece)
        self.commit(size)
        return True

    def entries(self, priorities=_ALL):
        """Yields the offsets of the records of these priorities in turn, each oldest first."""
        for priority in priorities:
            offset = 0
            while offset < self._used:
                flags = self._arena[offset + _FLAGS]
                if self._arena[offset + _PRIORITY] == priority and not flags & _DEAD:
                    yield offset
                offset += self._size(offset)

    def header(self, offset):
        """Returns (kind, flags, parts, done, rows, text, when, interval, Id) of a record."""
        fields = struct.unpack_from(FORMAT, self._arena, offset)
        return fields[2:3] + fields[4:]

    def content(self, offset):
        """The record's content, its padding included."""
        return self.record(offset)[HEADER:]

    def record(self, offset):
        """All of the record's bytes."""
        return self._arena[offset : offset + self._size(offset)]

    def stamp(self):
        """Fixes each record's wall-clock time, which a receiver is told, if the clock is set."""
        if not clock.is_set():
            return
        start = clock.unix() - clock.uptime()
        for offset in self.entries():
            if not self.mark(offset, STAMPED):
                when = struct.unpack_from("<I", self._arena, offset + _WHEN)[0]
                struct.pack_into("<I", self._arena, offset + _WHEN, start + when)
                if self._arena[offset + _FLAGS] & KEPT:
                    self.revision += 1

    def mark(self, offset, flag):
        """Sets a flag of a record; returns whether it was set before."""
        before = self._arena[offset + _FLAGS]
        self._arena[offset + _FLAGS] = before | flag
        return bool(before & flag)

    def acknowledge(self, offset):
        """Counts one more part as done, and forgets the record after its last."""
        self._arena[offset + _DONE] += 1
        self._arena[offset + _FLAGS] &= ~TRIED  # the next part was not
        self.revision += 1
        if self._arena[offset + _DONE] == self._arena[offset + _PARTS]:
            self.forget(offset)

    def forget(self, offset):
        """Lets go of a record; its bytes are free after the next compaction."""
        self._arena[offset + _FLAGS] |= _DEAD
        self.revision += 1
        self.count -= 1

    def expire(self, limit):
        """Forgets what was collected more than `limit` seconds ago, as far as the clock tells."""
        for offset in self.entries():
            _, flags, _, _, _, _, when, _, _ = self.header(offset)
            now = clock.unix() if flags & STAMPED else clock.uptime()
            if now - when > limit:  # a clock that is not set is behind all that was stamped
                self.expired += 1
                self.forget(offset)
        self._compact()

    def hold(self):
        """From now on nothing moves: offsets and views stay good until as many `release`."""
        self.holds += 1

    def release(self):
        self.holds -= 1
        self._compact()

    def _size(self, offset):
        return self._arena[offset] | self._arena[offset + 1] << 8

    def _compact(self):
        if self.holds:
            return
        arena = self._arena
        source = target = 0
        while source < self._used:
            size = self._size(source)
            if not arena[source + _FLAGS] & _DEAD:
                if target != source:
                    arena[target : target + size] = arena[source : source + size]
                target += size
            source += size
        self._used = target
