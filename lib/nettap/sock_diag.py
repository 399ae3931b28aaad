"""sock_diag(7): the kernel's sockets, with their ends and what TCP has counted. Linux only.

linux/inet_diag.h. Where a function takes `at`, a `struct inet_diag_msg` of 72 bytes begins there.
"""

import struct

from micropython import const

from nettap import netlink

TCP = const(6)
UDP = const(17)
INET = const(2)
INET6 = const(10)
SYN_SENT = const(2)  # states, linux/tcp_states.h
LISTEN = const(10)
CLOSE = const(7)  # of UDP: not connected

_BY_FAMILY = const(20)  # SOCK_DIAG_BY_FAMILY
_ANY_STATE = const(0xFFF)
_MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"  # RFC 4291 section 2.5.5.2
_ANY_COOKIE = b"\xff" * 8
_TCP_DESTROYED = const(0b101)  # SKNLGRP_INET_TCP_DESTROY and _INET6_TCP_DESTROY
_INFO = const(2)  # INET_DIAG_INFO
_MESSAGE = const(72)
# struct tcp_info, linux/tcp.h: 64-bit counters, of which these are the low words.
_BYTES_RECEIVED = const(128)
_BYTES_SENT = const(200)
_BYTES_RETRANSMITTED = const(208)
_FIN_WAIT2 = const(5)
_AFTER_FIN = (CLOSE, 8, 9, 11)  # CLOSE_WAIT, LAST_ACK, CLOSING: the peer's FIN counts as a byte


def sockets(protocol, family, states, info=False):
    """Yields (data, at, end) of each socket in one of `states`, a bit mask. Errors: OSError."""
    extensions = 1 << _INFO - 1 if info else 0
    body = struct.pack("BBBBI", family, protocol, extensions, 0, states) + bytes(40) + _ANY_COOKIE
    return netlink.dump(netlink.SOCK_DIAG, _BY_FAMILY, body)


def _find(protocol, laddr, lport, raddr, rport):
    # (data, at, end) of the socket with these ends, None if there is none.
    family = INET6 if len(laddr) == 16 else INET
    body = struct.pack("BBxxI", family, protocol, _ANY_STATE) + struct.pack(">HH", lport, rport)
    body += struct.pack("16s16s4x", laddr, raddr) + _ANY_COOKIE
    return netlink.ask(netlink.SOCK_DIAG, _BY_FAMILY, body)


def inode_of(*ends):
    """The `inode` of the socket with these ends (protocol, local address and port, remote address
    and port), 0 if there is none. Errors: OSError."""
    found = _find(*ends)
    return inode(found[0], found[1]) if found else 0


def destroyed():
    """A netlink socket that is told of each TCP socket that goes. Errors: OSError."""
    return netlink.connect(netlink.SOCK_DIAG, _TCP_DESTROYED)


def received(data):
    """Yields (data, at, end) of each socket in what `destroyed` received."""
    for kind, at, end in netlink.messages(data):
        if kind == _BY_FAMILY and end - at >= _MESSAGE:
            yield data, at, end


def state(data, at):
    return data[at + 1]


def local(data, at):
    """(address as 4 or 16 bytes, port) of this end."""
    return _end(data, at, 4, 8)


def remote(data, at):
    """(address as 4 or 16 bytes, port) of the other end."""
    return _end(data, at, 6, 24)


def _end(data, at, port, address):
    size = 16 if data[at] == INET6 else 4
    port += at
    address += at
    return plain(bytes(data[address : address + size])), data[port] << 8 | data[port + 1]


def plain(address):
    """An address of 4 or 16 bytes; IPv4 in the form of IPv6 as the 4 bytes that it is."""
    return address[12:] if address[:12] == _MAPPED else address


def cookie(data, at):
    """What tells the socket from all others, dead ones too: 8 bytes."""
    return bytes(data[at + 44 : at + 52])


def inode(data, at):
    """What its file descriptors have as their inode; 0 once they are closed."""
    return struct.unpack_from("I", data, at + 68)[0]


def transferred(data, at, end):
    """(bytes received, bytes sent) of a TCP socket's payload so far, modulo 2**32.

    None of what is no more than the memory of a closed connection. One that was reset, or whose
    ends closed it at once, may be told one byte short: its last one is taken for a FIN. Errors:
    OSError.
    """
    for kind, start, stop in netlink.attributes(data, at + _MESSAGE, end):
        if kind == _INFO and stop - start >= _BYTES_RETRANSMITTED + 8:
            received = struct.unpack_from("I", data, start + _BYTES_RECEIVED)[0]
            sent = struct.unpack_from("I", data, start + _BYTES_SENT)[0]
            again = struct.unpack_from("I", data, start + _BYTES_RETRANSMITTED)[0]
            if received and _has_fin(data, at):
                received -= 1
            return received, sent - again & 0xFFFFFFFF
    return None


def _has_fin(data, at):
    # Where this end closed first, the socket may be gone before the other's FIN has come: then
    # what the kernel has left there waits for it.
    if state(data, at) == CLOSE:
        rest = _find(TCP, *(local(data, at) + remote(data, at)))
        if rest and state(rest[0], rest[1]) == _FIN_WAIT2:
            return False
    return state(data, at) in _AFTER_FIN
