"""The kernel's process events, by its connector: for an administrator (CAP_NET_ADMIN) only.

linux/connector.h, linux/cn_proc.h; Documentation/driver-api/connector.rst.
"""

import struct
from errno import EAGAIN

from micropython import const
from nettap import netlink

FORK = const(1)  # ids: parent, its process, child, its process
EXEC = const(2)  # ids: thread, its process
EVENTS_MAX = const(64)  # of one turn

_PROCESSES = const(1)  # CN_IDX_PROC and CN_VAL_PROC
_LISTEN = const(1)  # PROC_CN_MCAST_LISTEN
_ACKNOWLEDGED = const(0)  # PROC_EVENT_NONE
_EVENT = const(20)  # where the event begins, after a struct cn_msg
_IDS = const(36)
_RECEIVE = const(256)


def listen():
    """Returns a netlink socket for `read`. Errors: OSError where the kernel does not tell."""
    link = netlink.connect(netlink.CONNECTOR, _PROCESSES)
    try:
        # nlmsghdr of NLMSG_DONE; cn_msg; the operation.
        link.send(
            struct.pack("IHHII", netlink.HEADER + 24, 3, 0, 0, 0)
            + struct.pack("IIIIHH", _PROCESSES, _PROCESSES, 0, 0, 4, 0)
            + struct.pack("I", _LISTEN)
        )
        # The answer is there by now: in a container the kernel says nothing at all, or no. Where
        # others listen already, events come before it.
        link.setblocking(False)
        for _ in range(EVENTS_MAX):
            for what, ids in _parse(link.recv(_RECEIVE)):
                if what == _ACKNOWLEDGED and ids[0]:
                    raise OSError(ids[0])
                if what == _ACKNOWLEDGED:
                    return link
        raise OSError("no process events")
    except OSError:
        link.close()
        raise


def read(link):
    """Yields (what, 4 ids) of the events that wait, `EVENTS_MAX` at most.

    Errors: OSError ENOBUFS once the kernel had no room for some: they are lost.
    """
    for _ in range(EVENTS_MAX):
        try:
            data = link.recv(_RECEIVE)
        except OSError as error:
            if error.errno != EAGAIN:
                raise
            return
        yield from _parse(data)


def _parse(data):
    for _, at, end in netlink.messages(data):
        if end - at >= _IDS + 16:
            what = struct.unpack_from("I", data, at + _EVENT)[0]
            yield what, struct.unpack_from("4I", data, at + _IDS)
