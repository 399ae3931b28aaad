"""netlink(7), the way to the kernel's own tables, and to be told what it does. Linux only.

A message is a `struct nlmsghdr` of 16 bytes and a body, in the machine's byte order
(linux/netlink.h).
"""

import socket
import struct

from micropython import const

ROUTE = const(0)
SOCK_DIAG = const(4)
CONNECTOR = const(11)
HEADER = const(16)

_FAMILY = const(16)  # AF_NETLINK
_REQUEST = const(1)  # NLM_F_REQUEST
_REQUEST_DUMP = const(0x301)  # NLM_F_REQUEST | NLM_F_DUMP
_FIRST_KIND = const(16)  # below are NLMSG_DONE, NLMSG_ERROR and other control messages
_TIMEOUT_S = const(1)
_RECEIVE = const(16384)  # the kernel fills as much as it is asked for
_ANSWER = const(512)  # for one message, or a few: a heap in use has no long pieces
_MAX_RECEIVES = const(256)
_SOL_NETLINK = const(270)
_STRICT = const(12)  # NETLINK_GET_STRICT_CHK, since Linux 4.20: what a dump is of can be chosen
_GET_ADDRESSES = const(22)  # RTM_GETADDR, linux/rtnetlink.h
_IFADDRMSG = const(8)  # struct ifaddrmsg: family, prefix, flags, scope u8 each, then the interface
_IFA_ADDRESS = const(1)  # the peer's, where there is also
_IFA_LOCAL = const(2)


def connect(protocol, groups=0):
    """Returns a socket; with `groups`, a bit mask, one that is told what the kernel does.

    Errors: OSError, such as EPERM for groups that are the administrator's.
    """
    link = socket.socket(_FAMILY, socket.SOCK_DGRAM, protocol)
    try:
        if groups:
            link.bind(struct.pack("HHII", _FAMILY, 0, 0, groups))
        link.settimeout(_TIMEOUT_S)
    except OSError:
        link.close()
        raise
    return link


def readable(link):
    """To be awaited: until there is something to receive. asyncio's own Stream waits so."""
    from asyncio import core  # the tap does without

    yield core._io_queue.queue_read(link)


def messages(data):
    """Yields (kind, where the body begins, where it ends) of each message in what was received."""
    at = 0
    while at + HEADER <= len(data):
        size, kind = struct.unpack_from("IH", data, at)
        if not HEADER <= size <= len(data) - at:
            return
        yield kind, at + HEADER, at + size
        at += size + 3 & ~3


def dump(protocol, kind, body):
    """Yields (data, where a message's body begins, where it ends) of all that a table holds.

    Errors: OSError, such as ENOENT where the kernel was built without that table.
    """
    link = connect(protocol)
    try:
        link.send(_request(kind, _REQUEST_DUMP, body))
        for _ in range(_MAX_RECEIVES):
            data = link.recv(_RECEIVE)
            for kind, start, end in messages(data):
                if kind < _FIRST_KIND:  # both begin with what went wrong, or 0
                    error = struct.unpack_from("i", data, start)[0] if end - start >= 4 else 0
                    if error:
                        raise OSError(-error)
                    return
                yield data, start, end
    finally:
        link.close()


def ask(protocol, kind, body):
    """(data, where its body begins, where it ends) of the message that answers; None if none does.

    Errors: OSError.
    """
    return next(_answer(protocol, kind, _REQUEST, body), None)


def _answer(protocol, kind, flags, body):
    # Yields, as `dump` does, what a short answer holds.
    link = connect(protocol)
    try:
        if flags == _REQUEST_DUMP:
            try:
                link.setsockopt(_SOL_NETLINK, _STRICT, 1)
            except OSError:  # an old kernel tells all that there is
                pass
        link.send(_request(kind, flags, body))
        data = link.recv(_ANSWER)
    finally:
        link.close()
    for kind, start, end in messages(data):
        if kind >= _FIRST_KIND:
            yield data, start, end


def _request(kind, flags, body):
    return struct.pack("IHHII", HEADER + len(body), kind, flags, 0, 0) + body


def attributes(data, at, end):
    """Yields (kind, where it begins, where it ends) of each `struct nlattr`."""
    while at + 4 <= end:
        size, kind = struct.unpack_from("HH", data, at)
        if not 4 <= size <= end - at:
            return
        yield kind, at + 4, at + size
        at += size + 3 & ~3


def addresses():
    """Yields (address, its interface's index, its scope) of all that this system has.

    Scopes are 0 for one that is routed, and more for those that are not. Errors: OSError.
    """
    for data, at, end in dump(ROUTE, _GET_ADDRESSES, bytes(_IFADDRMSG)):
        yield from _address(data, at, end)


def first_addresses(index, family):
    """As `addresses`, of an interface and AF_INET or AF_INET6: the first few, if it has many."""
    body = struct.pack("BBBBI", family, 0, 0, 0, index)
    for data, at, end in _answer(ROUTE, _GET_ADDRESSES, _REQUEST_DUMP, body):
        yield from _address(data, at, end)


def _address(data, at, end):
    found = {}
    for kind, start, stop in attributes(data, at + _IFADDRMSG, end):
        found[kind] = data[start:stop]
    address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if address:
        yield address, struct.unpack_from("I", data, at + 4)[0], data[at + 3]
