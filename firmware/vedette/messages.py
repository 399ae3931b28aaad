"""Messages as JSON, rendered piece by piece from what the outbox holds: none is ever whole.

Whatever yields pieces here yields ASCII strings, or views of bytes that are JSON already, so that
their lengths add up to the message's.
"""

from iothub import clock

from . import VERSION, flows
from .events import uuid
from .outbox import FLOWS, OBJECTS

CLOSING = "]}"


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
