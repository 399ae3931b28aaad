"""Events and messages as JSON, rendered piece by piece: no message is ever whole in memory.

Whatever yields pieces here yields ASCII strings, or views of bytes that are JSON already, so that
their lengths add up to the message's.
"""

import json
from binascii import hexlify

from iothub import clock
from micropython import const

from . import VERSION, flows
from .outbox import FLOWS, OBJECTS

_SEPARATORS = const((",", ":"))
CLOSING = "]}"
FRAME_MAX = const(768)  # the longest that an event with its envelope gets around the rows


def uuid(raw, part=0):
    """16 random bytes as the text of a UUID, version 4; each part has one of its own."""
    raw = raw[:6] + bytes([raw[6] & 15 | 64, raw[7], raw[8] & 63 | 128]) + raw[9:]
    text = hexlify(raw[:15] + bytes([raw[15] + part & 255])).decode()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def head(name, event_type, category):
    """How the text of an event begins (str): what all events of a collector share."""
    return '"Name":"%s","EventType":"%s","Category":"%s","PayloadSchemaVersion":"1.0",' % (
        name,
        event_type,
        category,
    )


def payload(columns, rows, objects):
    """How the text of an event ends: a list of str, as a heap in use has no long pieces left.

    `rows` is a list of lists of values, one for each of `columns`, a str of names with commas
    between them: alone, each would stay in the heap.
    """
    columns = columns.split(",")
    pieces = ['"IsEmpty":%s,"Payload":' % ("false" if rows else "true")]
    opening = "["
    if not objects:
        opening = '{"columns":%s,"rows":[' % json.dumps(columns, separators=_SEPARATORS)
    for row in rows:
        pieces += (
            opening,
            json.dumps(dict(zip(columns, row)) if objects else row, separators=_SEPARATORS),
        )
        opening = ","
    if not rows:
        pieces.append(opening)
    pieces.append("]" if objects else "]}")
    return pieces


def event(outbox, offset, part):
    """Yields the pieces of one event of a stamped record."""
    kind, flags, _, _, rows, length, when, interval, raw = outbox.header(offset)
    content = outbox.content(offset)
    yield '{"Id":"%s","TimestampUTC":"%s","IntervalSeconds":%d,' % (
        uuid(raw, part),
        clock.utc(when),
        interval,
    )
    yield content[:length]
    if kind == FLOWS:
        start, stop = part * rows, (part + 1) * rows
        yield from flows.payload(content[length:], start, stop, interval, flags & OBJECTS)
    yield "}"


def opening(agent_id):
    """How a message begins; it ends with `CLOSING`, and a comma stands between its events."""
    return '{"AgentVersion":"%s","AgentId":"%s","MessageSchemaVersion":"1.0","Events":[' % (
        VERSION,
        agent_id,
    )


def message(outbox, chosen, agent_id):
    """Yields the pieces of the message that holds the chosen (offset, part)."""
    yield opening(agent_id)
    for index, (offset, part) in enumerate(chosen):
        if index:
            yield ","
        yield from event(outbox, offset, part)
    yield CLOSING
