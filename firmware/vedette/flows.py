"""A snapshot of the flow table as the rows of a ConnectionCreate event.

In `columns` form, what neighbouring rows share stands once, in the tables of `shared`: each row
of such a table begins with the number of rows that it goes for, and these tables together with
`rows` give back the objects (`vedette_tools.expand`).
"""

import flowtable
from flowtable import ICMP, IN, TCP
from micropython import const
from nettap.sockets import app_name

from .events import address_text

# The longest that a row can get, with what is shared; and an event with its envelope around them.
COLUMNS_ROW_MAX = const(252)
OBJECTS_ROW_MAX = const(512)
FRAME_MAX = const(768)

_HOSTS_MAX = const(1024)  # bytes of host names kept with a snapshot
_NAME_MAX = const(64)

_COLUMNS = const(
    '{"columns":["local_port","remote_port","bytes_in","bytes_out","hit_count","first_seen",'
    '"last_seen"],"rows":['
)
_SERVICES = const(
    '],"shared":[{"columns":["row_count","direction","transport_protocol",'
    '"application_protocol","local_address"],"rows":['
)
_REMOTES = const(']},{"columns":["row_count","remote_address","host_name"],"rows":[')
_OBJECT = const(
    '{"direction":%s,"transport_protocol":%s,"application_protocol":%s,"local_address":%s,'
    '"remote_address":%s,"extended_properties":%s,"local_port":%s,"remote_port":%s,'
    '"bytes_in":%s,"bytes_out":%s,"hit_count":%s,"first_seen":%s,"last_seen":%s}'
)


def room(table):
    """Bytes that `take` may write for what is in the table now."""
    return 2 + table.snapshot_size() + _HOSTS_MAX


def take(table, view, host_name):
    """Moves flows from the table into a view, as many as have room, and notes known host names.

    `host_name(address)` returns a str or None. Returns the bytes written: where the names begin as
    u16, the snapshot, then for each name `first row u8 | length u8 | name`, and two zeros. Once
    flows have left the table, it does not fail for want of heap.
    """
    snapshot = view[2:-_HOSTS_MAX]
    at = 2 + table.drain(snapshot)
    view[0] = at & 255
    view[1] = at >> 8
    end = at + _HOSTS_MAX - 2
    try:
        for row, remote in flowtable.remotes(snapshot):
            name = host_name(remote) if remote else None
            # Only what needs no escape in JSON.
            name = [c if " " < c < "\x7f" and c not in '"\\' else "?" for c in name or ""]
            name = "".join(name[:_NAME_MAX]).encode()
            if name and at + 2 + len(name) <= end:
                view[at] = row
                view[at + 1] = len(name)
                view[at + 2 : at + 2 + len(name)] = name
                at += 2 + len(name)
    except MemoryError:
        pass  # they are nowhere else: better flows with fewer names than none
    view[at] = view[at + 1] = 0
    return at + 2


def _rows(content, start, stop, interval):
    """Yields each flow as a tuple of 13: the service (direction, transport and application
    protocol, local address), the remote address and its host name, and what is the row's own.
    """
    at = content[0] | content[1] << 8
    index = -1
    host = owner = None
    for flow in flowtable.unpack(content[2:]):
        index += 1
        protocol, direction, app, local, local_port, remote, remote_port = flow[:7]
        length = content[at + 1]
        if length and content[at] == index:  # it goes for the run of one address that begins here
            host, owner = str(content[at + 2 : at + 2 + length], "utf-8"), remote
            at += 2 + length
        if index == stop:
            return
        if index < start:
            continue
        unknown = 0 if protocol == ICMP else None
        yield (
            "In" if direction == IN else "Out",
            "TCP" if protocol == TCP else "ICMP" if protocol == ICMP else "UDP",
            app_name(app),
            local,
            remote,
            host if remote == owner else None,
            local_port or unknown,
            remote_port or unknown,
            flow[7],
            flow[8],
            flow[9],
            max(interval - flow[10], 0),
            max(interval - flow[11], 0),
        )


def payload(content, start, stop, interval, objects):
    """Yields the JSON of rows `start` to `stop` of what `take` wrote; `interval` is in seconds."""
    opening = "[" if objects else _COLUMNS
    for row in _rows(content, start, stop, interval):
        if objects:
            values = [_json(value) for value in row]
            if row[5]:
                values[5] = '{"host_name":%s}' % values[5]
            yield opening + _OBJECT % tuple(values)
        else:
            yield opening + _list(row[6:])
        opening = ","
    if objects:
        yield "]"
        return
    for opening, low, high in ((_SERVICES, 0, 4), (_REMOTES, 4, 6)):
        shared = None
        count = 0
        for row in _rows(content, start, stop, interval):
            if row[low:high] != shared:
                if count:
                    yield opening + _list((count,) + shared)
                    opening = ","
                shared = row[low:high]
                count = 0
            count += 1
        yield opening + _list((count,) + shared)
    yield "]}]}"


def _list(values):
    return "[" + ",".join([_json(value) for value in values]) + "]"


def _json(value):
    if value is None:
        return "null"
    if isinstance(value, bytes):
        value = address_text(value)
    return '"%s"' % value if isinstance(value, str) else str(value)
