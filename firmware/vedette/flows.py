"""A snapshot of the flow table as the rows of a ConnectionCreate event.

In `columns` form, what neighbouring rows share stands once, in the tables of `shared`: each row
of such a table begins with the number of rows that it goes for, and these tables together with
`rows` give back the objects (`vedette_tools.expand`).
"""

import flowtable
from flowtable import ICMP, IN, TCP, UDP
from micropython import const
from nettap.sockets import app_name

# The longest that a row can get, with what is shared.
COLUMNS_ROW_MAX = const(252)
OBJECTS_ROW_MAX = const(512)

_HOSTS_MAX = const(1024)  # bytes of host names kept with a snapshot
_NAME_MAX = const(64)
_NO_ROW = const(256)
_TRANSPORTS = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP"}

_COLUMNS = (
    '{"columns":["local_port","remote_port","bytes_in","bytes_out","hit_count","first_seen",'
    '"last_seen"],"rows":['
)
_SERVICES = (
    '],"shared":[{"columns":["row_count","direction","transport_protocol",'
    '"application_protocol","local_address"],"rows":['
)
_REMOTES = ']},{"columns":["row_count","remote_address","host_name"],"rows":['
_OBJECT = (
    '{"local_address":%s,"local_port":%s,"remote_address":%s,"remote_port":%s,'
    '"transport_protocol":"%s","application_protocol":%s,"direction":"%s","bytes_in":%d,'
    '"bytes_out":%d,"hit_count":%d,"first_seen":%d,"last_seen":%d,"extended_properties":%s}'
)


def room(table):
    """Bytes that `take` may write for what is in the table now."""
    return table.snapshot_size() + _HOSTS_MAX


def take(table, view, host_name):
    """Empties the table into a view of `room` bytes, sorted, and notes the known host names.

    `host_name(address)` returns a str or None. Returns (flows, bytes written, a multiple of 4):
    the snapshot, then for each name `first row u8 | length u8 | name`, at the end the snapshot's
    length as u16.
    """
    size = at = table.snapshot_size()
    end = at + _HOSTS_MAX - 8
    count = table.drain(view)
    flowtable.sort(view)
    last = None
    try:
        for row in range(count):
            raw = flowtable.remote(view, row)  # unpacking all flows takes long
            if raw != last:
                last = raw
                remote = flowtable.unpack(view, row)[5]
                name = _host_bytes(host_name(remote) if remote else None)
                if name and at + 2 + len(name) <= end:
                    view[at] = row
                    view[at + 1] = len(name)
                    view[at + 2 : at + 2 + len(name)] = name
                    at += 2 + len(name)
    except MemoryError:
        pass  # the table is empty already: better flows with fewer names than none
    view[at + 1] = 0
    at = (at + 2 + 2 + 3) & ~3
    view[at - 2] = size & 255
    view[at - 1] = size >> 8
    return count, at


def _host_bytes(name):
    # Only what needs no escape in JSON.
    return bytes([ord(c) if " " < c < "\x7f" and c not in '"\\' else 63 for c in name or ""])[
        :_NAME_MAX
    ]


def _host(content, at):
    """Returns (row, name, where the next entry is) of the host name at `at`."""
    length = content[at + 1]
    if length == 0:
        return _NO_ROW, None, at
    return content[at], str(content[at + 2 : at + 2 + length], "utf-8"), at + 2 + length


def _rows(content, start, stop):
    """Yields each flow with its host name, or None, as a 13th value."""
    row, name, at = _host(content, content[-2] | content[-1] << 8)
    host = owner = None
    for index in range(start, stop):
        while row <= index:  # a name goes for the run of one remote address that begins at its row
            host, owner = name, flowtable.unpack(content, row)[5]
            row, name, at = _host(content, at)
        flow = flowtable.unpack(content, index)
        yield flow + (host if flow[5] == owner else None,)


def payload(content, start, stop, interval, objects):
    """Yields the JSON of rows `start` to `stop` of what `take` wrote; `interval` is in seconds."""
    rows = _rows(content, start, stop)
    if objects:
        yield from _list("[", (_object(row, interval) for row in rows))
        yield "]"
        return
    yield from _list(_COLUMNS, (_row(row, interval) for row in rows))
    yield from _list(_SERVICES, _runs(_rows(content, start, stop), _service, _service_text))
    yield from _list(_REMOTES, _runs(_rows(content, start, stop), _remote, _remote_text))
    yield "]}]}"


def _list(opening, items):
    for item in items:
        yield opening + item
        opening = ","


def _runs(rows, shared, text):
    """Yields "[row count,...]" for each run of rows whose `shared(row)` is equal."""
    count = 0
    current = None
    for row in rows:
        value = shared(row)
        if value != current:
            if count:
                yield text(count, current)
            current = value
            count = 0
        count += 1
    yield text(count, current)


def _row(row, interval):
    ports = _port(row[4], row[0]), _port(row[6], row[0])
    return "[%s,%s,%d,%d,%d,%d,%d]" % (ports + row[7:9] + _seen(row, interval))


def _seen(row, interval):
    return row[9], max(interval - row[10], 0), max(interval - row[11], 0)


def _service(row):
    return row[:4]


def _service_text(count, service):
    return '[%d,"%s","%s",%s,%s]' % (
        count,
        _direction(service[1]),
        _TRANSPORTS[service[0]],
        _text(app_name(service[2])),
        _text(address_text(service[3])),
    )


def _remote(row):
    return row[5], row[12]


def _remote_text(count, remote):
    return "[%d,%s,%s]" % (count, _text(address_text(remote[0])), _text(remote[1]))


def _object(row, interval):
    return _OBJECT % (
        (
            _text(address_text(row[3])),
            _port(row[4], row[0]),
            _text(address_text(row[5])),
            _port(row[6], row[0]),
            _TRANSPORTS[row[0]],
            _text(app_name(row[2])),
            _direction(row[1]),
            row[7],
            row[8],
        )
        + _seen(row, interval)
        + ('{"host_name":"%s"}' % row[12] if row[12] else "null",)
    )


def _direction(code):
    return "In" if code == IN else "Out"


def _port(port, protocol):
    # 0 is a port that is not known, but ICMP has none.
    return port if port or protocol == ICMP else "null"


def _text(text):
    return '"%s"' % text if text else "null"


def address_text(address):
    """4 or 16 bytes as text, IPv6 as RFC 5952 writes it; None stays None."""
    if address is None:
        return None
    if len(address) == 4:
        return "%d.%d.%d.%d" % tuple(address)
    groups = ["%x" % (address[i] << 8 | address[i + 1]) for i in range(0, 16, 2)]
    for length in range(8, 1, -1):
        for at in range(9 - length):
            if groups[at : at + length] == ["0"] * length:
                return ":".join(groups[:at]) + "::" + ":".join(groups[at + length :])
    return ":".join(groups)
