"""The outbox: order, bounds, drops by cause, and what it lets go of."""

import random

from vedette.outbox import FLOWS, HEADER, STAMPED, Outbox


def _texts(outbox):
    found = []
    for priority in range(3):
        for offset in outbox.entries(priority):
            length = outbox.header(offset)[5]
            found.append(bytes(outbox.content(offset)[:length]).decode())
    return found


def _forget(outbox, text):
    outbox.hold()
    for priority in range(3):
        for offset in outbox.entries(priority):
            if bytes(outbox.content(offset)[: len(text)]) == text:
                outbox.acknowledge(offset)
    outbox.release()


def test_high_comes_first_then_the_oldest():
    outbox = Outbox(1024)
    for text, priority in ((b"low 1", 2), (b"medium", 1), (b"low 2", 2), (b"high", 0)):
        assert outbox.add(text, priority, 5, 60)
    assert _texts(outbox) == ["high", "medium", "low 1", "low 2"]
    assert outbox.count == 4


def test_an_acknowledged_record_leaves_the_others_whole():
    outbox = Outbox(1024)
    for text in (b"first", b"second is longer", b"third"):
        outbox.add(text, 1, 5, 60)
    ids = [outbox.header(offset)[-1] for offset in outbox.entries(1)]
    _forget(outbox, b"first")
    assert _texts(outbox) == ["second is longer", "third"]
    assert [outbox.header(offset)[-1] for offset in outbox.entries(1)] == ids[1:]
    assert len(set(ids)) == 3


def test_nothing_moves_while_it_is_held():
    outbox = Outbox(256)
    for text in (b"a" * 60, b"b" * 60):
        outbox.add(text, 2, 5, 60)
    first, second = outbox.entries(2)
    view = outbox.content(second)
    outbox.hold()
    outbox.acknowledge(first)
    assert outbox.add(b"c", 0, 5, 60)  # there is room behind
    assert not outbox.add(b"d" * 80, 0, 5, 60)  # there is not, and nothing may be moved or dropped
    assert bytes(view[:60]) == b"b" * 60
    outbox.release()
    assert outbox.add(b"d" * 80, 0, 5, 60)
    assert _texts(outbox) == ["c", "d" * 80, "b" * 60]
    assert outbox.refused == 1 and outbox.dropped == 0


def test_a_full_outbox_drops_the_oldest_of_lower_priority_only():
    outbox = Outbox(4 * (HEADER + 20))
    for text, priority in ((b"low 1", 2), (b"low 2", 2), (b"medium", 1), (b"high", 0)):
        assert outbox.add(text + b"." * (20 - len(text)), priority, 5, 60)
    assert not outbox.add(b"low 3" + b"." * 15, 2, 5, 60)
    assert outbox.refused == 1
    assert outbox.add(b"high 2" + b"." * 14, 0, 5, 60)
    assert [text.rstrip(".") for text in _texts(outbox)] == ["high", "high 2", "medium", "low 2"]
    assert outbox.dropped == 1 and outbox.count == 4
    # What would not make room enough is not dropped for nothing.
    assert outbox.reserve(1000, 0) is None
    assert outbox.dropped == 1 and outbox.count == 4


def test_old_records_expire_by_the_clock_they_were_stamped_with():
    outbox = Outbox(1024)
    for text, when in ((b"old", 10), (b"young", 90), (b"stamped", 20)):
        outbox.add(text, 1, when, 60)
    _, _, third = outbox.entries(1)
    outbox.stamp(third, 1800000000)
    assert outbox.header(third)[1] & STAMPED
    outbox.expire(100, None, 50)
    assert _texts(outbox) == ["young", "stamped"] and outbox.expired == 1
    outbox.expire(100, 1800000051, 50)
    assert _texts(outbox) == ["young"] and outbox.expired == 2


def test_a_record_of_parts_goes_after_its_last_part():
    outbox = Outbox(1024)
    view = outbox.reserve(100, 1)
    assert len(view) == 100
    outbox.commit(FLOWS, 1, 0, 3, 14, 4, 5, 60, 100)
    (offset,) = outbox.entries(1)
    outbox.hold()
    for done in range(3):
        assert outbox.header(offset)[2:5] == (3, done, 14)
        assert outbox.count == 1
        outbox.acknowledge(offset)
    outbox.release()
    assert outbox.count == 0 and not list(outbox.entries(1))


def test_tried_tells_once():
    outbox = Outbox(1024)
    outbox.add(b"x", 1, 5, 60)
    (offset,) = outbox.entries(1)
    assert not outbox.tried(offset) and outbox.tried(offset)


def test_against_a_model():
    # A list of (priority, text) in order of age says what must be there.
    for seed in range(60):
        random.seed(seed)
        outbox = Outbox(1500)
        model = []
        dropped = refused = 0
        for step in range(80):
            if random.randrange(3):
                text = b"%d " % step + b"x" * random.randrange(200)
                priority = random.randrange(3)
                lower = sum(_size(t) for p, t in model if p > priority)
                free = 1500 - sum(_size(t) for _, t in model)
                if _size(text) > free + lower:
                    refused += 1
                else:
                    for lowest in (2, 1):
                        for item in [i for i in model if i[0] == lowest > priority]:
                            if _size(text) > free:
                                free += _size(item[1])
                                model.remove(item)
                                dropped += 1
                    model.append((priority, text))
                outbox.add(text, priority, 0, 0)
            elif model:
                item = random.choice(model)
                model.remove(item)
                _forget(outbox, item[1])
            order = [t.decode() for p in range(3) for q, t in model if p == q]
            assert _texts(outbox) == order, (seed, step)
            assert (outbox.dropped, outbox.refused) == (dropped, refused)
            assert outbox.count == len(model)


def _size(text):
    return HEADER + len(text) + 3 & ~3
