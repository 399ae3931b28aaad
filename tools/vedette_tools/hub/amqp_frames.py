"""Makes the lists in AMQP's frames whole.

AMQP 1.0 lets a sender leave out the nulls at the end of a performative's list, as Proton does.
Microsoft's services send them, and azure-eventhub reads no list without them.
"""

from __future__ import annotations

# How many fields a performative has, by its descriptor (AMQP 1.0, part 2.7).
_FIELDS = {
    0x10: 10,  # open
    0x11: 8,  # begin
    0x12: 14,  # attach
    0x13: 11,  # flow
    0x14: 11,  # transfer
    0x15: 6,  # disposition
    0x16: 3,  # detach
    0x17: 1,  # end
    0x18: 1,  # close
}
_HEADER = b"AMQP\x00\x01\x00\x00"
_LIST0, _LIST8, _LIST32, _NULL = 0x45, 0xC0, 0xD0, b"\x40"


class Frames:
    """What one side sends, as it comes from Proton."""

    def __init__(self) -> None:
        self._rest = b""

    def whole(self, data: bytes) -> bytes:
        """The frames that are complete by now, with all fields."""
        data, made = self._rest + data, b""
        if data.startswith(_HEADER):
            data, made = data[len(_HEADER) :], _HEADER
        while len(data) >= 4 and len(data) >= (size := int.from_bytes(data[:4])):
            made += _padded(data[:size])
            data = data[size:]
        self._rest = data
        return made


def _padded(frame: bytes) -> bytes:
    body = 4 * frame[4]
    if len(frame) < body + 4 or frame[body : body + 2] != b"\x00\x53":
        return frame  # an empty one, which keeps the connection alive
    fields = _FIELDS.get(frame[body + 2], 0)
    at = body + 3
    match frame[at]:
        case code if code == _LIST0:
            count, begin, end = 0, at + 1, at + 1
        case code if code == _LIST8:
            count, begin, end = frame[at + 2], at + 3, at + 2 + frame[at + 1]
        case code if code == _LIST32:
            count = int.from_bytes(frame[at + 5 : at + 9])
            begin, end = at + 9, at + 5 + int.from_bytes(frame[at + 1 : at + 5])
        case _:
            return frame
    if count >= fields:
        return frame
    values = frame[begin:end] + _NULL * (fields - count)
    made = frame[4:at] + bytes([_LIST32])
    made += (4 + len(values)).to_bytes(4) + fields.to_bytes(4) + values + frame[end:]
    return (4 + len(made)).to_bytes(4) + made
