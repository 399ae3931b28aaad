"""Takes events from the outbox to the hub: one message at a time, forgotten on PUBACK only."""

import asyncio

from iothub import clock
from micropython import const

from . import events, log, messages
from .outbox import TRIED

_UNIT = const(4096)  # bytes; what a hub meters by
_HUB_MAX = const(262144)  # bytes of a message
_PIECES = const(8)  # rendered in a row before the application's tasks have their turn
_DAY = const(86400)
_INTERFACE = "urn:azureiot:Security:SecurityAgent:1"


async def flush(sender, limit):
    """Sends what is waiting while that goes; HubError when it does not.

    What is older than `limit` seconds is dropped.
    """
    outbox = sender.outbox
    _expire(outbox, limit)
    revision = outbox.revision
    try:
        while outbox.count and sender.client.connected:
            allowance = _allowance(sender)
            outbox.hold()
            try:
                outbox.stamp()
                chosen, length = await pack(sender, allowance)
                if not chosen:
                    sender.quota_waits += 1
                    return
                outbox.stamp()  # what came while it was packed
                await _send(sender, chosen, length)
            finally:
                outbox.release()
    finally:
        if outbox.revision != revision:
            outbox.changed.set()


def _expire(outbox, limit):
    before = outbox.expired
    outbox.expire(limit)
    if outbox.expired > before:
        log.warning("%d events too old to send" % (outbox.expired - before))


def _allowance(sender):
    """What the day's quota leaves for one message, in bytes."""
    today = clock.unix() // _DAY
    if today != sender.day[0]:
        sender.day[:] = (today, 0, 0, 0)
    quota = sender.settings["Message_DailyQuota"]
    return min((quota - sender.day[2]) * _UNIT, _HUB_MAX) if quota else _HUB_MAX


async def pack(sender, allowance):
    """Returns ([(offset, part)], length of their message): High first, then oldest first.

    An event longer than Message_MaxSize, which was more when it was collected, goes alone.
    """
    outbox = sender.outbox
    chosen = []
    total = len(messages.opening(sender.agent_id)) + len(messages.CLOSING)
    limit = min(allowance, sender.settings["Message_MaxSize"])
    for offset in outbox.entries():
        _, _, parts, done, _, _, _, _, _ = outbox.header(offset)
        for part in range(done, parts):
            room = (limit if chosen else allowance) - total - (1 if chosen else 0)
            size = await _measure(messages.event(outbox, offset, part), room)
            if size > room:
                break
            total += size + (1 if chosen else 0)
            chosen.append((offset, part))
    return chosen, total


async def _measure(pieces, room):
    """The length of the pieces together; once it is more than `room`, it may be too little."""
    total = 0
    count = 0
    for piece in pieces:
        total += len(piece)
        count += 1
        if total > room:
            break
        if count % _PIECES == 0:
            await asyncio.sleep_ms(0)
    return total


async def _send(sender, chosen, length):
    outbox = sender.outbox
    offset, part = chosen[0]
    properties = {
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "$.mid": events.uuid(outbox.header(offset)[-1], part),
        "$.ifid": _INTERFACE,
    }
    again = [offset for offset in {entry[0] for entry in chosen} if outbox.mark(offset, TRIED)]
    sender.sent += 1
    sender.retried += 1 if again else 0

    async def write_all(write):
        count = 0
        for piece in messages.message(outbox, chosen, sender.agent_id):
            await write(piece.encode() if isinstance(piece, str) else piece)
            count += 1
            if count % _PIECES == 0:
                await asyncio.sleep_ms(0)

    await sender.client.send_stream(length, write_all, properties)
    sender.acknowledged += 1
    sender.events_sent += len(chosen)
    sender.day[1] += 1
    sender.day[2] += (length + _UNIT - 1) // _UNIT
    sender.day[3] += length
    for offset, _ in chosen:
        outbox.acknowledge(offset)
