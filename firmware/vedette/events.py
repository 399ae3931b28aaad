"""Events as text, as collectors make them."""

import json
from binascii import hexlify

from micropython import const

_SEPARATORS = const((",", ":"))


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
    between them: alone, each would stay in the heap. It is emptied, so that text takes its place.
    """
    columns = columns.split(",")
    pieces = ['"IsEmpty":%s,"Payload":' % ("false" if rows else "true")]
    opening = "["
    if not objects:
        opening = '{"columns":%s,"rows":[' % json.dumps(columns, separators=_SEPARATORS)
    if not rows:
        pieces.append(opening)
    while rows:
        row = rows.pop(0)
        pieces.append(opening)
        if objects:
            row = dict(zip(columns, row))
        pieces.append(json.dumps(row, separators=_SEPARATORS))
        opening = ","
    pieces.append("]" if objects else "]}")
    return pieces


def address_text(address):
    """4 or 16 bytes as text, IPv6 as RFC 5952 writes it."""
    if len(address) == 4:
        return "%d.%d.%d.%d" % tuple(address)
    groups = ["%x" % (address[i] << 8 | address[i + 1]) for i in range(0, 16, 2)]
    for length in range(8, 1, -1):
        for at in range(9 - length):
            if groups[at : at + length] == ["0"] * length:
                return ":".join(groups[:at]) + "::" + ":".join(groups[at + length :])
    return ":".join(groups)
