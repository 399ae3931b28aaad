"""The outbox: order, bounds, drops by cause, and what it lets go of."""

import random

import micropython
from iothub import clock
from vedette.outbox import FLOWS, HEADER, KEPT, STAMPED, TRIED, Outbox

clock._seconds += 86400  # the device has been up for a day


def _texts(outbox):
    found = []
    for offset in outbox.entries():
        length = outbox.header(offset)[5]
        found.append(bytes(outbox.content(offset)[:length]).decode())
    return found


def _forget(outbox, text):
    outbox.hold()
    for offset in outbox.entries():
        if bytes(outbox.content(offset)[: len(text)]) == text:
            outbox.acknowledge(offset)
    outbox.release()


def test_high_comes_first_then_the_oldest():
    outbox = Outbox(1024)
    for text, priority in ((b"low 1", 2), (b"medium", 1), (b"low 2", 2), (b"high", 0)):
        assert outbox.add([text], priority, 5, 60)
    assert _texts(outbox) == ["high", "medium", "low 1", "low 2"]
    assert outbox.count == 4


def test_an_acknowledged_record_leaves_the_others_whole():
    outbox = Outbox(1024)
    for text in (b"first", b"second is longer", b"third"):
        outbox.add([text], 1, 5, 60)
    ids = [outbox.header(offset)[-1] for offset in outbox.entries()]
    _forget(outbox, b"first")
    assert _texts(outbox) == ["second is longer", "third"]
    assert [outbox.header(offset)[-1] for offset in outbox.entries()] == ids[1:]
    assert len(set(ids)) == 3


def test_nothing_moves_while_it_is_held():
    outbox = Outbox(256)
    for text in (b"a" * 60, b"b" * 60):
        outbox.add([text], 2, 5, 60)
    first, second = outbox.entries()
    view = outbox.content(second)
    outbox.hold()
    outbox.acknowledge(first)
    assert outbox.add([b"c"], 0, 5, 60)  # there is room behind
    assert not outbox.add([b"d" * 80], 0, 5, 60)  # nothing may be moved
    assert bytes(view[:60]) == b"b" * 60
    outbox.release()
    assert outbox.add([b"d" * 80], 0, 5, 60)
    assert _texts(outbox) == ["c", "d" * 80, "b" * 60]
    assert outbox.dropped == 0


def test_a_full_outbox_drops_the_oldest_of_lower_priority_only():
    outbox = Outbox(4 * (HEADER + 20))
    for text, priority in ((b"low 1", 2), (b"low 2", 2), (b"medium", 1), (b"high", 0)):
        assert outbox.add([text + b"." * (20 - len(text))], priority, 5, 60)
    assert not outbox.add([b"low 3" + b"." * 15], 2, 5, 60)
    assert outbox.add([b"high 2" + b"." * 14], 0, 5, 60)
    assert [text.rstrip(".") for text in _texts(outbox)] == ["high", "high 2", "medium", "low 2"]
    assert outbox.dropped == 1 and outbox.count == 4
    # What would not make room enough is not dropped for nothing.
    assert _reserve(outbox, 1000, 0) is None
    assert outbox.dropped == 1 and outbox.count == 4


def test_old_records_expire_by_the_clock_they_were_stamped_with():
    outbox = Outbox(1024)
    uptime, unix = clock.uptime(), clock.unix
    outbox.add([b"stamped"], 1, uptime - 80, 60)
    outbox.stamp()
    (offset,) = outbox.entries()
    flags, when = outbox.header(offset)[1], outbox.header(offset)[6]
    assert flags & STAMPED and -1 <= unix() - 80 - when <= 1
    for text, age in ((b"old", 90), (b"young", 10)):
        outbox.add([text], 1, uptime - age, 60)
    try:
        clock.unix = lambda: 946684800  # not set, as after a reset: stamped ones cannot be told
        outbox.expire(50)
        assert _texts(outbox) == ["stamped", "young"] and outbox.expired == 1
        outbox.stamp()
        assert not outbox.header(list(outbox.entries())[1])[1] & STAMPED
    finally:
        clock.unix = unix
    outbox.expire(50)
    assert _texts(outbox) == ["young"] and outbox.expired == 2


def test_a_record_of_parts_goes_after_its_last_part():
    outbox = Outbox(1024)
    view = _reserve(outbox, 200, 1, parts=3, rows=14)
    assert len(view) == 200
    outbox.commit(100)
    (offset,) = outbox.entries()
    assert len(outbox.content(offset)) == 100
    outbox.hold()
    for done in range(3):
        assert outbox.header(offset)[2:5] == (3, done, 14)
        assert outbox.count == 1
        outbox.acknowledge(offset)
    outbox.release()
    assert outbox.count == 0 and not list(outbox.entries())


def test_a_mark_tells_once():
    outbox = Outbox(1024)
    outbox.add([b"x"], 1, 5, 60)
    (offset,) = outbox.entries()
    assert not outbox.mark(offset, TRIED) and outbox.mark(offset, TRIED)
    assert not outbox.mark(offset, KEPT)


def test_nothing_moves_until_all_who_hold_it_have_let_go():
    outbox = Outbox(1024)
    for text in (b"first", b"second"):
        outbox.add([text], 1, 5, 60)
    first, second = outbox.entries()
    outbox.hold()
    outbox.hold()
    outbox.acknowledge(first)
    outbox.release()
    assert list(outbox.entries()) == [second]
    outbox.release()
    assert list(outbox.entries()) == [first]


def test_the_journal_is_told_of_new_records_and_of_changes_apart():
    outbox = Outbox(1024)
    outbox.add([b"x"], 1, clock.uptime(), 60)
    assert outbox.changed.is_set() and outbox.revision == 0
    outbox.stamp()  # nobody has kept it yet
    assert outbox.revision == 0
    outbox.add([b"y"], 1, clock.uptime(), 60)
    for offset in outbox.entries():
        outbox.mark(offset, KEPT)
    outbox.stamp()
    assert outbox.revision == 1
    _forget(outbox, b"x")
    assert outbox.revision > 1


def test_committing_takes_no_heap():
    outbox = Outbox(1024)
    _reserve(outbox, 100, 1)
    micropython.heap_lock()
    try:
        outbox.commit(60)
    finally:
        micropython.heap_unlock()
    assert outbox.count == 1 and outbox.high_water == HEADER + 60


def test_against_a_model():
    # A list of (priority, text) in order of age says what must be there.
    for seed in range(60):
        random.seed(seed)
        outbox = Outbox(1500)
        model = []
        dropped = 0
        for step in range(80):
            if random.randrange(3):
                text = b"%d " % step + b"x" * random.randrange(200)
                priority = random.randrange(3)
                lower = sum(_size(t) for p, t in model if p > priority)
                free = 1500 - sum(_size(t) for _, t in model)
                room = _size(text) <= free + lower
                if room:
                    for lowest in (2, 1):
                        for item in [i for i in model if i[0] == lowest > priority]:
                            if _size(text) > free:
                                free += _size(item[1])
                                model.remove(item)
                                dropped += 1
                    model.append((priority, text))
                assert outbox.add([text], priority, 0, 0) == room
            elif model:
                item = random.choice(model)
                model.remove(item)
                _forget(outbox, item[1])
            order = [t.decode() for p in range(3) for q, t in model if p == q]
            assert _texts(outbox) == order, (seed, step)
            assert outbox.dropped == dropped
            assert outbox.count == len(model)


def _reserve(outbox, size, priority, parts=1, rows=0):
    return outbox.reserve(size, FLOWS, priority, 0, parts, 0, rows, 4, 5, 60, bytes(16))


def _size(text):
    return HEADER + len(text) + 3 & ~3
