"""A journal that an earlier agent left behind is read by this one, byte for byte.

When this fails because the layout of a record or of a snapshot of the flow table was changed, or
the codes of application protocols, that change must raise VERSION in vedette/outbox.py: a journal
outlives an update of the firmware.
"""

import struct
from binascii import crc32, hexlify, unhexlify

from vedette import messages
from vedette.journal import Journal
from vedette.outbox import VERSION, Outbox

_VERSION = 2
_JOURNAL = (
    "615100000300000004000000881300006e37a9890c010201010901000200800000d2496b0807000010111213"
    "1415161718191a1b1c1d1e1f224e616d65223a22436f6e6e656374696f6e437265617465222c224576656e74"
    "54797065223a225365637572697479222c2243617465676f7279223a2241676772656761746564222c225061"
    "796c6f6164536368656d6156657273696f6e223a22312e30222c224973456d707479223a66616c73652c2250"
    "61796c6f6164223a57000200020000000000000000000000ffff0a00000720010db800000000000000000000"
    "00019192025db8d822bb01409c01230a0aa00fb0040141920320010db8000000000000000000000001419c33"
    "1602403c3c4d01000b6170692e6578616d706c650000000049d5801cc4000200020901000000a00000d2496b"
    "80510100000102030405060708090a0b0c0d0e0f224e616d65223a22486561727462656174222c224576656e"
    "7454797065223a224f7065726174696f6e616c222c2243617465676f7279223a22506572696f646963222c22"
    "5061796c6f6164536368656d6156657273696f6e223a22312e30222c224973456d707479223a66616c73652c"
    "225061796c6f6164223a7b22636f6c756d6e73223a5b22757074696d65225d2c22726f7773223a5b5b373230"
    "305d5d7dc2798e1a"
)
_FLOWS = (
    '{"Id":"10111213-1415-4617-9819-1a1b1c1d1e1f","TimestampUTC":"2027-01-15T08:00:00Z","Interv'
    'alSeconds":1800,"Name":"ConnectionCreate","EventType":"Security","Category":"Aggregated","'
    'PayloadSchemaVersion":"1.0","IsEmpty":false,"Payload":{"columns":["local_port","remote_por'
    't","bytes_in","bytes_out","hit_count","first_seen","last_seen"],"rows":[[40000,443,4000,12'
    '00,1,1790,1790],[5683,40001,77,0,1,1740,1740]],"shared":[{"columns":["row_count","directio'
    'n","transport_protocol","application_protocol","local_address"],"rows":[[1,"Out","TCP","TL'
    'S","10.0.0.7"],[1,"In","UDP",null,"2001:db8::1"]]},{"columns":["row_count","remote_address'
    '","host_name"],"rows":[[1,"93.184.216.34","api.example"],[1,"2001:db8::1",null]]}]}}'
)
_HEARTBEAT = (
    '{"Id":"00010203-0405-4607-8809-0a0b0c0d0e0f","TimestampUTC":"2027-01-15T08:00:00Z","Interv'
    'alSeconds":86400,"Name":"Heartbeat","EventType":"Operational","Category":"Periodic","Paylo'
    'adSchemaVersion":"1.0","IsEmpty":false,"Payload":{"columns":["uptime"],"rows":[[7200]]}}'
)


def _event(outbox, offset):
    pieces = messages.event(outbox, offset, 0)
    return "".join([piece if isinstance(piece, str) else str(piece, "utf-8") for piece in pieces])


async def test_a_journal_of_this_version_is_read_and_written_as_ever():
    assert VERSION == _VERSION
    with open("journal", "wb") as file:
        file.write(unhexlify(_JOURNAL))
    outbox, day = Outbox(1024), [0] * 4
    journal = Journal("journal", outbox, day)
    journal.load()
    assert journal.errors == 0 and day == [20833, 3, 4, 5000]
    assert [_event(outbox, offset) for offset in outbox.entries()] == [_FLOWS, _HEARTBEAT]
    await Journal("another", outbox, day).save()
    with open("another", "rb") as file:
        assert hexlify(file.read()).decode() == _JOURNAL


def test_a_record_of_another_version_is_passed_over():
    data = bytearray(unhexlify(_JOURNAL))
    record = memoryview(data)[20:]  # the first, and what follows
    size = record[0] | record[1] << 8
    record[2] += 1
    record[size : size + 4] = struct.pack("<I", crc32(record[:size]))
    with open("journal", "wb") as file:
        file.write(data)
    outbox = Outbox(1024)
    journal = Journal("journal", outbox, [0] * 4)
    journal.load()
    assert [_event(outbox, offset) for offset in outbox.entries()] == [_HEARTBEAT]
    assert journal.errors == 1
