"""Reads the journal back: used once, at the start."""

import errno
import os
import struct
from binascii import crc32

from iothub import clock
from micropython import const

from .outbox import FORMAT, HEADER, STAMPED, VERSION

_DAY = const(16)
_FLAGS = const(2)  # among the fields from `kind` on
_WHEN = const(7)


def load(path, outbox, day):
    """Fills the outbox and `day` with what is whole in the file.

    Returns how many places were not, or found no room; None where there is no file. A record whose
    time of collection nobody can know any more gets that of the start.
    """
    try:
        try:
            os.stat(path)
        except OSError:  # renaming takes two steps on FAT, and the first may have been the last
            os.rename(path + ".new", path)
        with open(path, "rb") as file:
            outbox.hold()  # nothing need make room for another: all were in it together
            try:
                return _read(file, outbox, day)
            finally:
                outbox.release()
    except OSError as error:
        return None if error.errno == errno.ENOENT else 1


def _read(file, outbox, day):
    data = file.read(_DAY)
    damaged = 0
    if _whole(file, crc32(data)):
        day[:] = struct.unpack("<4I", data)
    else:
        damaged = 1
    header = bytearray(HEADER)
    while True:
        length = file.readinto(header)
        if not length:
            return damaged
        size, version, *fields = struct.unpack(FORMAT, header)
        size -= HEADER
        if length < HEADER or size <= 0:
            return damaged + 1
        if not fields[_FLAGS] & STAMPED:
            fields[_WHEN] = clock.uptime()
        view = outbox.reserve(size, *fields) if version == VERSION else None
        if view is None:
            file.seek(size + 4, 1)
            damaged += 1
        elif file.readinto(view) and _whole(file, crc32(view, crc32(header))):
            outbox.commit(size)
        else:
            damaged += 1


def _whole(file, crc):
    return file.read(4) == struct.pack("<I", crc)
