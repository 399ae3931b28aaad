"""What the hub has not acknowledged yet: one preallocated arena, oldest first.

A record is one collection, not a message. It stands by itself, little endian:

    size u16 | version u8 | kind u8 | priority u8 | flags u8 | parts u8 | done u8 | rows u16
    | text u16 | when u32 | interval u32 | Id 16 bytes | content, padded to a multiple of 4

It makes `parts` events, of which the first `done` were acknowledged; each has `rows` rows, the
last the rest. `size` is that of the whole record, `text` the length of the JSON text that begins
the content, `when` the time of collection: uptime in seconds, or seconds since 1970 once STAMPED.
The Id is the first part's.
"""

import os
import struct

from micropython import const

TEXT = const(0)  # the content is text alone
FLOWS = const(1)  # text, then what `flows.take` wrote

STAMPED = const(1)
OBJECTS = const(2)  # rows are rendered as objects, not columns
TRIED = const(4)  # was in a message before
_DEAD = const(128)  # forgotten; its bytes go with the next compaction

HEADER = const(36)

_FORMAT = "<HBBBBBBHHII16s"
_VERSION = const(1)
_PRIORITY = const(4)
_FLAGS = const(5)
_PARTS = const(6)
_DONE = const(7)
_WHEN = const(12)


def _padded(size):
    return HEADER + size + 3 & ~3


class Outbox:
    """Bounded by `size` bytes, 65535 at most. Nothing here waits or raises for want of room.

    `count` is of records; `dropped` counts those that made room for one of higher priority,
    `refused` those that found none, `expired` those that grew too old; `high_water` is in bytes.
    """

    def __init__(self, size=13312):
        self._arena = memoryview(bytearray(size))
        self._used = 0
        self._held = False
        self.count = 0
        self.high_water = 0
        self.dropped = 0
        self.refused = 0
        self.expired = 0

    def reserve(self, size, priority):
        """Returns a view of `size` bytes for a record's content, or None where there is no room.

        Records of lower priority are dropped, the oldest of the lowest first, if that makes room.
        Nothing is taken until `commit`. The view begins at a multiple of 4.
        """
        size = _padded(size)
        free = len(self._arena) - self._used
        if size > free and not self._held and size <= free + self._below(priority):
            for lowest in range(2, priority, -1):
                for offset in self.entries(lowest):
                    if size > free:
                        free += self._size(offset)
                        self.dropped += 1
                        self.forget(offset)
            self._compact()
        if size > free:
            return None
        return self._arena[self._used + HEADER : self._used + size]

    def commit(self, kind, priority, flags, parts, rows, text, when, interval, size):
        """Makes a record of the first `size` bytes of the view that was reserved last."""
        size = _padded(size)
        fields = (size, _VERSION, kind, priority, flags, parts, 0, rows, text, when, interval)
        struct.pack_into(_FORMAT, self._arena, self._used, *fields, os.urandom(16))
        self._used += size
        self.count += 1
        self.high_water = max(self.high_water, self._used)

    def add(self, text, priority, when, interval):
        """Adds a record of text alone (bytes). Returns False, and counts, where it has no room."""
        view = self.reserve(len(text), priority)
        if view is None:
            self.refused += 1
            return False
        view[: len(text)] = text
        self.commit(TEXT, priority, 0, 1, 0, len(text), when, interval, len(text))
        return True

    def entries(self, priority):
        """Yields the offsets of the records of one priority, oldest first."""
        offset = 0
        while offset < self._used:
            flags = self._arena[offset + _FLAGS]
            if self._arena[offset + _PRIORITY] == priority and not flags & _DEAD:
                yield offset
            offset += self._size(offset)

    def header(self, offset):
        """Returns (kind, flags, parts, done, rows, text, when, interval, Id) of a record."""
        fields = struct.unpack_from(_FORMAT, self._arena, offset)
        return fields[2:3] + fields[4:]

    def content(self, offset):
        """The record's content, its padding included."""
        return self._arena[offset + HEADER : offset + self._size(offset)]

    def stamp(self, offset, unix):
        """Fixes the wall-clock time of a record: from now on it is what a receiver is told."""
        struct.pack_into("<I", self._arena, offset + _WHEN, unix)
        self._arena[offset + _FLAGS] |= STAMPED

    def tried(self, offset):
        """Marks a record as sent; returns whether it was before."""
        before = self._arena[offset + _FLAGS] & TRIED
        self._arena[offset + _FLAGS] |= TRIED
        return bool(before)

    def acknowledge(self, offset):
        """Counts one more part as done, and forgets the record after its last."""
        self._arena[offset + _DONE] += 1
        if self._arena[offset + _DONE] == self._arena[offset + _PARTS]:
            self.forget(offset)

    def forget(self, offset):
        """Lets go of a record; its bytes are free after the next compaction."""
        self._arena[offset + _FLAGS] |= _DEAD
        self.count -= 1

    def expire(self, uptime, unix, limit):
        """Forgets what was collected more than `limit` seconds ago. `unix` None: not known."""
        for priority in range(3):
            for offset in self.entries(priority):
                flags = self._arena[offset + _FLAGS]
                now = unix if flags & STAMPED else uptime
                when = struct.unpack_from("<I", self._arena, offset + _WHEN)[0]
                if now is not None and now - when > limit:
                    self.expired += 1
                    self.forget(offset)
        self._compact()

    def hold(self):
        """From now on nothing moves: offsets and views stay good until `release`."""
        self._held = True

    def release(self):
        self._held = False
        self._compact()

    def _size(self, offset):
        return self._arena[offset] | self._arena[offset + 1] << 8

    def _below(self, priority):
        return sum(
            self._size(offset)
            for lower in range(priority + 1, 3)
            for offset in self.entries(lower)
        )

    def _compact(self):
        if self._held:
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
