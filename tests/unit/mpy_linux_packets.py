"""What is read of packets and of the kernel's messages, and that any bytes at all may come."""

import random
import struct

import flowtable
from flowtable import ICMP, IN, OUT, UDP
from nettap import netlink, sock_diag
from vedette.ports import packets, process_events

_ROUNDS = 4000
_HERE = bytes((10, 0, 0, 7))
_THERE = bytes((203, 0, 113, 9))
_HERE6 = b"\xfd" + bytes(14) + b"\x07"
_THERE6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x09"
_HOST, _BROADCAST, _MULTICAST, _OUTGOING = 0, 1, 2, 4


class Own:
    """Nothing is own but one UDP port."""

    udp = {5353: 77}

    def __init__(self, table):
        self.open = table.open

    def has_port(self, port):
        return port == 4000


class Owners:
    def __init__(self):
        self.noted = []

    def note(self, *what):
        self.noted.append(what)


class Watched:
    def __init__(self):
        packets._open = lambda: None
        packets._addresses = lambda: {_HERE: 2, _HERE6: 2, bytes((127, 0, 0, 1)): 1}
        self.table = flowtable.FlowTable(policy=flowtable.DROP_OLDEST)
        self.tried = []
        self.owners = Owners()
        self.packets = packets.Packets(
            self.table, Own(self.table), self.owners, lambda *ends: self.tried.append(ends)
        )

    def take(self, data, kind, index=2):
        self.packets._take(data, kind, index)

    def flows(self):
        view = bytearray(self.table.snapshot_size())
        self.table.drain(view)
        return [flow[:10] for flow in flowtable.unpack(view)]


def _v4(protocol, source, target, body, options=b""):
    words = 5 + len(options) // 4
    length = 4 * words + len(body)
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, 0, 0, 64, protocol, 0)
    return head + source + target + options + body


def _v6(protocol, source, target, body):
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + source + target + body


def _udp(source, target, size):
    return struct.pack(">HHHH", source, target, 8 + size, 0) + bytes(min(size, 60))


def test_datagrams_of_both_families_and_ways():
    watched = Watched()
    watched.take(_v4(17, _HERE, _THERE, _udp(5000, 53, 40)), _OUTGOING)
    watched.take(_v4(17, _THERE, _HERE, _udp(53, 5000, 3000), options=bytes(8)), _HOST)
    watched.take(_v6(17, _THERE6, _HERE6, _udp(6000, 5353, 5)), _HOST)
    second, first = watched.flows()  # what came in is first
    assert first == (UDP, OUT, 5, _HERE, 5000, _THERE, 53, 3000, 40, 2)
    assert second == (UDP, IN, 6, _HERE6, 5353, _THERE6, 6000, 5, 0, 1)
    assert watched.owners.noted[-1] == (UDP, 5353, 77)


def test_what_is_own_or_passed_on_is_not_counted():
    watched = Watched()
    watched.take(_v4(17, _HERE, _THERE, _udp(4000, 53, 40)), _OUTGOING)
    watched.take(_v4(17, _THERE, bytes((10, 0, 0, 8)), _udp(53, 5000, 40)), _HOST)
    watched.take(_v4(17, bytes((10, 0, 0, 8)), _THERE, _udp(53, 5000, 40)), _OUTGOING)
    assert watched.flows() == []


def test_a_packet_of_a_bridge_is_counted_on_one_of_its_interfaces():
    watched = Watched()
    packet = _v4(17, _THERE, _HERE, _udp(53, 5000, 40))
    watched.take(packet, _HOST, index=3)
    watched.take(packet, _HOST, index=2)
    ((*_, received, _, hits),) = watched.flows()
    assert (received, hits) == (40, 1)
    watched.take(_v4(17, _HERE, _HERE, _udp(5000, 53, 40)), _OUTGOING, index=1)
    assert len(watched.flows()) == 1  # this system to itself, over the loopback


def test_what_comes_for_a_group_has_no_local_address():
    watched = Watched()
    watched.take(_v4(17, _THERE, bytes((224, 0, 0, 251)), _udp(5353, 5353, 40)), _MULTICAST)
    watched.take(_v4(17, _THERE, b"\xff\xff\xff\xff", _udp(67, 68, 300)), _BROADCAST)
    assert [flow[3:5] for flow in watched.flows()] == [(None, 5353), (None, 68)]


def test_each_icmp_message_is_a_hit_with_its_length():
    watched = Watched()
    for _ in range(3):
        watched.take(_v4(1, _HERE, _THERE, b"\x08" + bytes(63)), _OUTGOING)
        watched.take(_v4(1, _THERE, _HERE, bytes(64)), _HOST)
    watched.take(_v6(58, _THERE6, _HERE6, b"\x80" + bytes(63)), _HOST)
    second, first = watched.flows()  # what came in is first
    assert first == (ICMP, OUT, 0, _HERE, 0, _THERE, 0, 192, 192, 6)
    assert second == (ICMP, IN, 0, _HERE6, 0, _THERE6, 0, 64, 0, 1)


def test_a_connection_that_begins_is_told():
    watched = Watched()
    watched.take(_v4(6, _HERE, _THERE, struct.pack(">HH", 50000, 443) + bytes(16)), _OUTGOING)
    assert watched.tried == [(_HERE, 50000, _THERE, 443)] and watched.flows() == []


def test_no_packet_is_an_error():
    watched = Watched()
    whole = (
        _v4(17, _HERE, _THERE, _udp(5000, 53, 40)),
        _v4(1, _THERE, _HERE, bytes(64)),
        _v6(17, _THERE6, _HERE6, _udp(6000, 5353, 5)),
    )
    for _ in range(_ROUNDS):
        data = bytearray(random.choice(whole))
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data))] = random.getrandbits(8)
        data = bytes(data[: random.randrange(len(data) + 1)])
        watched.take(data, random.randrange(5))
        if watched.table.live > 200:
            watched.flows()


def test_no_message_of_the_kernel_is_an_error():
    message = struct.pack("IHHII", 16 + 72 + 8 + 216, 20, 0, 0, 0) + bytes(72)
    message += struct.pack("HH", 4 + 216, 2) + bytes(216) + bytes(4)
    for _ in range(_ROUNDS):
        data = bytearray(message)
        for _ in range(random.randrange(4)):
            data[random.randrange(len(data) if random.getrandbits(1) else 20)] = (
                random.getrandbits(8)
            )
        data = bytes(data[: random.randrange(len(data) + 1)])
        for found, at, end in sock_diag.received(data):
            sock_diag.transferred(found, at, end)
            sock_diag.remote(found, at)
        for _, ids in process_events._parse(data):
            assert len(ids) == 4
        for _, at, end in netlink.messages(data):
            assert 16 <= at <= end <= len(data)
            for _, start, stop in netlink.attributes(data, at, end):
                assert at < start <= stop <= end


def test_an_address_is_this_systems_and_not_its_peers():
    body = struct.pack("BBBBI", 2, 32, 0, 0, 7)
    peer, own = struct.pack("HH", 8, 1) + _THERE, struct.pack("HH", 8, 2) + _HERE
    six = struct.pack("BBBBI", 10, 64, 0, 253, 7) + struct.pack("HH", 20, 1) + _HERE6
    known = body + peer + own, body + own, six
    plain = netlink.dump
    try:
        netlink.dump = lambda *_: [(data, 0, len(data)) for data in known]
        assert list(netlink.addresses()) == [(_HERE, 7, 0), (_HERE, 7, 0), (_HERE6, 7, 253)]
        known = [six[:size] for size in range(len(six))]  # none has a whole address
        assert list(netlink.addresses()) == []
    finally:
        netlink.dump = plain
