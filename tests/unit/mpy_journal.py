# timeout: 120
"""The journal on a flash whose power goes at every single operation, on real file systems."""

import asyncio
import os
import random

import vfs
from flash import Flash
from iothub import clock
from vedette import log
from vedette.journal import Journal
from vedette.outbox import HEADER, STAMPED, Outbox

log.level = 0
clock._seconds += 86400  # the device has been up for a day
_MOUNT = "/flash"
_PATH = _MOUNT + "/journal"
_ENOSPC = 28
_LARGE = 12288  # bytes of an outbox
_HEAD = 20  # bytes before the first record


class Device:
    """An outbox with its journal, on a file system of its own, from one reset to the next."""

    def __init__(self, flash, kind, size=4096):
        self.flash = flash
        self.kind = kind
        try:
            vfs.umount(_MOUNT)
        except OSError:
            pass  # nothing was there
        vfs.mount(kind(flash), _MOUNT)
        self.day = [0, 0, 0, 0]
        self.outbox = Outbox(size)
        self.journal = Journal(_PATH, self.outbox, self.day)
        self.journal.load()

    def reset(self, size=4096):
        """Returns the device as it is after a reset, the power back."""
        return Device(self.flash.revived(), self.kind, size)

    def texts(self):
        return [str(self.outbox.content(offset)[:6], "utf-8") for offset in self.outbox.entries()]

    def save(self):
        asyncio.run(self.journal.save())
        return not self.flash.power == 0

    def records(self):
        """{Id: (header without flags and done, content)} of what waits."""
        found = {}
        for offset in self.outbox.entries():
            kind, _, parts, _, rows, text, when, interval, identity = self.outbox.header(offset)
            header = kind, parts, rows, text, when, interval
            found[identity] = header, bytes(self.outbox.content(offset))
        assert len(found) == self.outbox.count  # no Id twice
        return found

    def add(self, size, priority):
        assert self.outbox.add([bytes([65 + size % 26]) * size], priority, clock.uptime(), 60)

    def acknowledge(self, count):
        """As the sender does it: the first `count` in the order of sending, then the day."""
        self.outbox.hold()
        for _, offset in zip(range(count), self.outbox.entries()):
            self.outbox.acknowledge(offset)
        self.outbox.release()
        self.day[:] = [20000, self.day[1] + 1, self.day[2] + 1, self.day[3] + 100]


def _lfs(blocks=32):
    flash = Flash(blocks)
    vfs.VfsLfs2.mkfs(flash)
    return flash, vfs.VfsLfs2


def _fat():
    flash = Flash(160, 512)
    vfs.VfsFat.mkfs(flash)
    return flash, vfs.VfsFat


# What the agent does between two saves: (size, priority) to add, a number to acknowledge.
_STEPS = (
    ((60, 2),),
    ((300, 1), (700, 0)),
    (2,),
    ((1500, 2), (7000, 1)),
    ((40, 0), 1, (900, 1)),
    ((80, 2), (80, 1)),
    (9,),
    ((33, 0),),
)


def _run(device, known):
    """Runs the steps until the power goes. Returns (records and day of the last save that was
    completed, those of the one that was not); adds to `known` all that there ever was."""
    saved = after = ({}, [0, 0, 0, 0])
    for step in _STEPS:
        for what in step:
            if isinstance(what, tuple):
                device.add(*what)
            else:
                device.acknowledge(what)
        device.outbox.stamp()
        after = device.records(), list(device.day)
        known.update(after[0])
        if not device.save():
            return saved, after
        used = sum(len(device.outbox.record(offset)) + 4 for offset in device.outbox.entries())
        assert os.stat(_PATH)[6] == _HEAD + used  # it never has more than the outbox
        saved = after
    return saved, after


def _cut_everywhere(make):
    cut = 0
    while True:
        cut += 1
        flash, kind = make()
        flash.power = cut
        device = Device(flash, kind, _LARGE)
        known = {}
        (saved, day), (pending, pending_day) = _run(device, known)
        whole = flash.power
        device = device.reset(_LARGE)
        found = device.records()
        # Nothing is lost that was complete; nothing is repeated that a completed save forgot.
        lost = [identity for identity in saved if identity not in found]
        assert not [identity for identity in lost if identity in pending], (cut, lost)
        assert not [i for i in found if i not in saved and i not in pending], cut
        for identity, record in found.items():
            assert record == known[identity], cut
        assert device.day in (day, pending_day), (cut, device.day)
        # It goes on from there: a record more, another reset.
        device.add(50, 1)
        device.outbox.stamp()
        found = device.records()
        assert device.save()
        device = device.reset(_LARGE)
        assert device.records() == found and device.journal.errors == 0, cut
        if whole:
            return cut


def test_littlefs_without_power_at_any_operation():
    assert _cut_everywhere(_lfs) > 150


def test_fat_without_power_at_any_sector():
    assert _cut_everywhere(_fat) > 80


def _filled(sizes=(60, 90, 200)):
    """A device with these records in its journal, after one that was acknowledged."""
    flash, kind = _lfs()
    device = Device(flash, kind)
    device.add(40, 1)
    device.acknowledge(1)
    for size in sizes:
        device.add(size, 1)
        assert device.save()
    return device


def _file():
    with open(_PATH, "rb") as file:
        return bytearray(file.read())


def _put(data):
    with open(_PATH, "wb") as file:
        file.write(data)


def _places(device):
    """Where each record begins in the file, in its order, and where the last one ends."""
    places = [_HEAD]
    for offset in device.outbox.entries():
        places.append(places[-1] + len(device.outbox.record(offset)) + 4)
    return places


def test_a_flipped_bit_takes_the_record_it_hits_and_no_other():
    device = _filled()
    whole, places, records = _file(), _places(device), device.records()
    order = list(device.outbox.header(offset)[-1] for offset in device.outbox.entries())
    assert places[-1] == len(whole)
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        _put(data)
        device = device.reset()
        found = device.records()
        assert device.journal.errors, at
        hit = sum(at >= place for place in places) - 1  # -1: what stands before the records
        expected = [identity for number, identity in enumerate(order) if number != hit]
        if hit >= 0 and at < places[hit] + 2:  # its length: where the next begins is not known
            assert [identity for identity in order[:hit] if identity in found] == order[:hit]
        else:
            assert sorted(found) == sorted(expected), (at, hit)
        for identity, record in found.items():
            assert record == records[identity], at
        assert device.day == ([0] * 4 if hit < 0 else [20000, 1, 1, 100])


def test_a_file_cut_at_any_length_keeps_what_is_whole():
    device = _filled()
    whole, places, records = _file(), _places(device), device.records()
    for length in range(len(whole) + 1):
        _put(whole[:length])
        device = device.reset()
        found = device.records()
        assert len(found) == sum(length >= place for place in places[1:]), length
        assert all(record == records[identity] for identity, record in found.items())
        assert (device.journal.errors == 0) == (length in places), length


def test_garbage_is_counted_and_the_next_write_is_good():
    device = _filled()
    whole = _file()
    random.seed(7)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random.randrange(1, 40)):
            start = random.randrange(len(data))
            piece = os.urandom(random.randrange(1, 40))
            data[start : start + len(piece)] = piece
        _put(data)
        device = device.reset()
        assert device.journal.errors
        device.add(44, 1)
        found = device.records()
        assert device.save()
        device = device.reset()
        device.outbox.stamp()
        assert set(device.records()) == set(found) and device.journal.errors == 0


def test_a_full_flash_is_counted_and_what_waits_is_written_once_there_is_room():
    device = _filled((60,)).reset(12000)
    try:
        while True:
            with open(_MOUNT + "/other", "ab") as file:
                file.write(bytes(512))
    except OSError as error:
        assert error.errno == _ENOSPC
    device.add(9000, 1)
    device.save()
    assert device.journal.errors == 1 and device.outbox.count == 2
    device.save()
    assert device.journal.errors == 2
    os.remove(_MOUNT + "/other")
    records = device.records()
    assert device.save() and device.journal.errors == 2
    device = device.reset(12000)
    assert device.records() == records


def test_a_flash_that_fails_leaves_the_outbox_as_it_is():
    device = _filled((60,))
    device.flash.power = 0
    device.add(300, 1)
    device.save()
    device.acknowledge(1)
    device.save()
    assert device.journal.errors == 2 and device.texts() == ["OOOOOO"]


def test_without_a_folder_nothing_is_kept_and_nothing_raises():
    outbox = Outbox(1024)
    journal = Journal("/nowhere/journal", outbox, [0] * 4)
    journal.load()
    assert outbox.add([b"text"], 1, 5, 60) and journal.errors == 0
    asyncio.run(journal.save())
    assert journal.errors == 1 and outbox.count == 1


def test_the_time_of_collection_outlives_a_reset_if_the_clock_was_ever_set():
    flash, kind = _lfs()
    device = Device(flash, kind)
    unix = clock.unix
    try:
        clock.unix = lambda: 946684800  # as boards start
        device.outbox.add([b"early"], 1, clock.uptime() - 3600, 60)
        assert device.save()
        device = device.reset()
        (offset,) = device.outbox.entries()
        fields = device.outbox.header(offset)
        # Nobody can know any more: that of the start.
        assert not fields[1] & STAMPED and clock.uptime() - fields[6] <= 1
        clock.unix = unix
        device.outbox.add([b"late"], 1, clock.uptime() - 1800, 60)
        assert device.save()
        clock.unix = lambda: 946684800
        clock._seconds += 5000
        device = device.reset()
    finally:
        clock.unix = unix
    for offset, age in zip(device.outbox.entries(), (0, 1800)):
        fields = device.outbox.header(offset)
        assert fields[1] & STAMPED and 0 <= unix() - age - fields[6] <= 2, fields


def test_what_gave_way_or_grew_too_old_is_not_in_the_file():
    device = _filled((900, 900, 900, 900))
    device.add(1000, 0)
    assert device.outbox.dropped == 1 and device.save()
    assert os.stat(_PATH)[6] == _places(device)[-1]
    device.outbox.expire(-1)
    device.add(50, 1)
    assert device.save()
    device = device.reset()
    assert device.texts() == ["YYYYYY"]


def test_what_is_torn_makes_no_room_for_itself():
    device = _filled((2500,))
    records = device.records()
    with open(_PATH, "ab") as file:
        file.write(b"\x00\x0c\x01\x00\x00" + bytes(100))  # 3072 bytes, of the highest priority
    device = device.reset()
    assert device.records() == records and device.journal.errors == 1


def test_an_outbox_made_smaller_takes_what_fits():
    device = _filled((100, 900, 100))
    device = device.reset(512)
    assert device.texts() == ["WWWWWW", "WWWWWW"] and device.journal.errors == 1
    device.add(50, 0)
    assert device.save()
    device = device.reset(512)
    assert device.texts() == ["YYYYYY", "WWWWWW", "WWWWWW"] and device.journal.errors == 0


async def test_the_loop_has_its_turn_while_a_long_record_is_written_and_may_acknowledge_it():
    flash, kind = _lfs()
    device = Device(flash, kind, 8192)
    device.add(6000, 1)
    turns = 0
    writing = asyncio.create_task(device.journal.save())
    while not writing.done():
        turns += 1
        if turns == 3:  # in the middle of it the hub has it, and something else comes
            device.acknowledge(1)
            device.add(100, 1)
        await asyncio.sleep_ms(0)
    assert turns > 6000 // 512
    # What was begun is whole in the file, though the outbox has let go of it.
    copy = Outbox(8192)
    Journal(_PATH, copy, device.day).load()
    assert [bytes(copy.content(at)) for at in copy.entries()] == [b"U" * 6000, b"W" * 100]
    await device.journal.save()
    device = Device(flash, kind, 8192)
    assert device.texts() == ["WWWWWW"] and device.journal.errors == 0


async def test_the_task_writes_each_collection_at_once_and_outlives_errors():
    flash, kind = _lfs()
    device = Device(flash, kind)
    task = asyncio.create_task(device.journal.run())
    for number in range(1, 5):
        flash.power = 0 if number == 2 else None
        device.add(100, 1)
        for _ in range(20):
            await asyncio.sleep_ms(0)
        assert (_records_in_file() == number) == (number != 2), number
    assert device.journal.errors == 1
    task.cancel()


def _records_in_file():
    return (os.stat(_PATH)[6] - _HEAD) // (HEADER + 100 + 4)


async def test_a_write_that_is_broken_off_is_made_good_by_the_next():
    flash, kind = _lfs()
    device = Device(flash, kind)
    device.add(100, 1)
    await device.journal.save()
    device.add(2000, 1)
    writing = asyncio.create_task(device.journal.save())
    await asyncio.sleep_ms(0)
    await asyncio.sleep_ms(0)
    writing.cancel()  # as the agent's stop() does
    await asyncio.sleep_ms(0)
    device.add(50, 1)
    await device.journal.save()
    device = Device(flash, kind)
    assert len(device.texts()) == 3 and device.journal.errors == 0
