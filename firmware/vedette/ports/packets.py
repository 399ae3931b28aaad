"""UDP and ICMP of all programs on Linux, packet by packet, into the flow table.

packet(7), for who may (CAP_NET_RAW). A filter in the kernel lets through the beginning of each
datagram and ICMP message, and of TCP, whose bytes the kernel counts itself, only what begins a
connection from here. What is passed on for others is left out, and so is neighbour discovery, as
ARP is.
"""

import asyncio
import socket
import struct
import time

import uctypes
from flowtable import ICMP, IN, OUT, TCP, UDP
from micropython import const
from nettap import netlink, protocols

_AF_PACKET = const(17)
_ALL = const(3)  # ETH_P_ALL
_SOL_SOCKET = const(1)
_ATTACH_FILTER = const(26)
_HEAD = const(96)  # bytes of a packet that are looked at
_PACKETS_MAX = const(64)  # taken in one turn; then a pause, so that a flood does not take the CPU
_PAUSE_MS = const(50)
_FLOWS_MAX = const(256)
_LOOK_MS = const(1000)
_INDEX = const(4)  # in struct sockaddr_ll
_TYPE = const(10)
_BROADCAST = const(1)
_MULTICAST = const(2)
_OUTGOING = const(4)
_IPV4 = const(20)  # bytes of the headers
_IPV6 = const(40)
_LOOPBACK = const(127)
_LOCALHOST = b"\x7f\0\0\x01"

# Classic BPF, linux/filter.h: code u16, instructions to skip if true u8, if false u8, operand u32.
_FILTER = (
    (0x28, 0, 0, 0xFFFFF000),  # load the frame's protocol
    (0x15, 9, 0, 0x86DD),  # IPv6: on to its next header
    (0x15, 0, 21, 0x0800),  # neither: refuse
    (0x28, 0, 0, 6),  # load the place of the fragment
    (0x45, 19, 0, 0x1FFF),  # not the first: refuse
    (0x30, 0, 0, 9),  # load the protocol
    (0x15, 16, 0, 17),  # UDP: take
    (0x15, 15, 0, 1),  # ICMP: take
    (0x15, 0, 15, 6),  # neither is it TCP: refuse
    (0xB1, 0, 0, 0),  # x: length of the header
    (0x05, 0, 0, 5),  # on to TCP
    (0x30, 0, 0, 6),  # load the next header
    (0x15, 10, 0, 17),  # UDP: take
    (0x15, 7, 0, 58),  # ICMPv6: on to its type
    (0x15, 0, 9, 6),  # neither is it TCP: refuse
    (0x01, 0, 0, _IPV6),  # x: length of the header
    (0x50, 0, 0, 13),  # load the flags
    (0x54, 0, 0, 0x12),  # of them SYN and ACK
    (0x15, 0, 5, 0x02),  # not SYN alone: refuse
    (0x30, 0, 0, 0xFFFFF004),  # load the way that the packet goes
    (0x15, 2, 3, _OUTGOING),  # a connection that begins here: take
    (0x30, 0, 0, 40),  # load the type of the message
    (0x35, 1, 0, 130),  # neighbours, routers, group members: refuse; errors and echoes: take
    (0x06, 0, 0, _HEAD),
    (0x06, 0, 0, 0),
)


def _open():
    """Returns a packet socket that takes what the filter lets through. Errors: OSError."""
    link = socket.socket(_AF_PACKET, socket.SOCK_DGRAM, 0)
    try:
        code = b"".join([struct.pack("HBBI", *line) for line in _FILTER])
        program = struct.pack("HP", len(_FILTER), uctypes.addressof(code))
        link.setsockopt(_SOL_SOCKET, _ATTACH_FILTER, program)
        # Only now that it is filtered it is let in: struct sockaddr_ll.
        link.bind(struct.pack("HHiHBB8s", _AF_PACKET, _ALL << 8, 0, 0, 0, 0, b""))
        link.setblocking(False)
    except OSError:
        link.close()
        raise
    return link


def _addresses():
    """{address: index of its interface} of what this system has now. Errors: OSError."""
    return {address: index for address, index, _ in netlink.addresses()}


class Packets:
    """`tried(local address, port, remote address, port)` is told of each connection that begins.

    Errors: OSError where packets are not for us to see.
    """

    def __init__(self, table, own, owners, tried):
        self._table = table
        self._own = own
        self._owners = owners
        self._tried = tried
        self._link = _open()
        self._flows = {}  # [token, direction] by flow
        self._addresses = _addresses()
        self._looked = time.ticks_ms()

    async def run(self):
        """Runs for ever."""
        while True:
            await netlink.readable(self._link)
            for _ in range(_PACKETS_MAX):
                try:
                    data, address = self._link.recvfrom(_HEAD)
                except OSError:  # no more
                    break
                self._take(data, address[_TYPE], struct.unpack_from("I", address, _INDEX)[0])
            else:
                await asyncio.sleep_ms(_PAUSE_MS)

    def close(self):
        self._link.close()

    def _take(self, data, kind, index):
        # This is before the kernel has looked whether a packet is well made.
        if len(data) < _IPV4:
            return
        if data[0] >> 4 == 4:
            at = (data[0] & 15) * 4
            protocol, size = data[9], (data[2] << 8 | data[3]) - at
            laddr, raddr = data[12:16], data[16:20]
        else:
            at = _IPV6
            protocol, size = data[6], data[4] << 8 | data[5]
            laddr, raddr = data[8:24], data[24:40]
        if len(data) < at + 8 or size < 8:
            return
        lport, rport, length = struct.unpack_from(">HHH", data, at)
        way = OUT if kind == _OUTGOING else IN
        if way == IN:
            laddr, raddr, lport, rport = raddr, laddr, rport, lport
        if kind in (_BROADCAST, _MULTICAST) or not any(laddr):
            laddr = None
        elif not self._is_ours(laddr, index):
            return
        if protocol == TCP:
            self._tried(laddr, lport, raddr, rport)
        elif protocol != UDP:
            self._count((ICMP, laddr, 0, raddr, 0), way, size)
        elif not self._own.has_port(lport):
            self._count((UDP, laddr, lport, raddr, rport), way, max(length - 8, 0))

    def _is_ours(self, address, index):
        # What has another address is passed on, for others. What is on another interface than its
        # address is a packet of a bridge or a VLAN, which is seen again on that.
        if len(address) == 4 and address[0] == _LOOPBACK:
            return True
        found = self._addresses.get(address)
        if found is None and time.ticks_diff(time.ticks_ms(), self._looked) >= _LOOK_MS:
            self._looked = time.ticks_ms()
            self._addresses = _addresses()
            found = self._addresses.get(address)
        return found is not None and index in (found, self._addresses.get(_LOCALHOST))

    def _count(self, key, way, size):
        known = self._flows.get(key)
        if known is None:
            if len(self._flows) == _FLOWS_MAX:
                self._flows.clear()
            known = self._flows[key] = [0, way]
        count = self._table.count_in if way == IN else self._table.count_out
        # Each ICMP message is a hit, which `open` counts; of UDP, each count is one.
        if key[0] == ICMP or not count(known[0], size):
            protocol, laddr, lport, raddr, rport = key
            app = protocols.by_port(rport if known[1] == OUT else lport)
            known[0] = self._own.open(protocol, known[1], laddr, lport, raddr, rport, app)
            count(known[0], size)
            if protocol == UDP:
                self._owners.note(UDP, lport, self._own.udp.get(lport, 0))
