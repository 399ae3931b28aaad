"""The flow table: against a plain model, at its bounds, and with the heap locked."""

import gc
import os
import random

import flowtable as ft
import micropython

HOST = b"\x0a\x00\x00\x07"
PEER = b"\x5d\xb8\xd8\x22"
HOST6 = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07"


def drain(table):
    buffer = bytearray(table.snapshot_size())
    size = table.drain(buffer)
    return list(ft.unpack(bytes(buffer[:size])))


def key_of(row):
    return (row[0], row[3], row[4], row[5], row[6])


def refused(call, *arguments):
    try:
        call(*arguments)
    except ValueError:
        return True
    return False


def test_a_flow_comes_back_as_it_was_counted():
    table = ft.FlowTable()
    table.tick(5)
    token = table.open(ft.TCP, ft.OUT, HOST, 50122, PEER, 443, 3)
    assert table.count_in(token, 100) == 1
    table.tick(9)
    assert table.count_out(token, 7) == 1
    assert table.count_in(token, 1) == 1
    table.set_app(token, 31)
    assert drain(table) == [(6, ft.OUT, 31, HOST, 50122, PEER, 443, 101, 7, 1, 5, 9)]
    assert drain(table) == []


def test_ipv6_unknown_ends_and_mapped_ipv4():
    table = ft.FlowTable()
    table.open(ft.TCP, ft.IN, HOST6, 80, HOST6[:15] + b"\x09", 65535)
    table.open(ft.UDP, ft.OUT, None, 0, PEER, 53)
    table.open(58, ft.IN, HOST6, 0, None, 0)
    table.open(ft.TCP, ft.IN, bytes(10) + b"\xff\xff" + HOST, 1, PEER, 2)
    table.open(ft.TCP, ft.IN, HOST, 1, bytes(10) + b"\xff\xff" + PEER, 2)  # the same flow
    rows = [row[:7] + row[9:10] for row in drain(table)]
    assert rows == [
        (ft.TCP, ft.IN, 0, HOST6, 80, HOST6[:15] + b"\x09", 65535, 1),
        (ft.TCP, ft.IN, 0, HOST, 1, PEER, 2, 2),
        (ft.UDP, ft.OUT, 0, None, 0, PEER, 53, 0),
        (ft.ICMP, ft.IN, 0, HOST6, 0, None, 0, 1),
    ]


def test_each_part_of_the_key_makes_a_flow_of_its_own():
    table = ft.FlowTable()
    for protocol in (ft.TCP, ft.UDP, ft.ICMP):
        for local in (None, HOST, HOST6):
            for remote in (PEER, HOST6):
                for lport in (1, 65535):
                    for rport in (1, 65535):
                        table.open(protocol, ft.OUT, local, lport, remote, rport)
                        table.open(protocol, ft.IN, local, lport, remote, rport)
    rows = drain(table)
    assert len(rows) == 72 and len(set(key_of(row) for row in rows)) == 72


def test_hits_are_openings_for_tcp_and_datagrams_for_udp():
    table = ft.FlowTable()
    for _ in range(3):
        tcp = table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
        table.count_out(tcp, 10)
        table.count_in(tcp, 10)
    udp = table.open(ft.UDP, ft.OUT, HOST, 1, PEER, 53)
    for _ in range(4):
        table.count_out(udp, 10)
    assert table.open(ft.UDP, ft.IN, HOST, 1, PEER, 53) == udp
    assert [row[9] for row in drain(table)] == [3, 4]


class _Seeded:
    """In place of `os`: a table of this seed tells the refused flows of a test apart."""

    def __enter__(self):
        ft.os = self

    def __exit__(self, *_):
        ft.os = os

    def urandom(self, size):
        return bytes(range(1, size + 1))


def test_drop_new_keeps_known_flows_counting_and_counts_what_it_refuses():
    with _Seeded():
        table = ft.FlowTable()
    tokens = [table.open(ft.UDP, ft.OUT, HOST, 1000 + i, PEER, 53) for i in range(300)]
    assert all(t > 0 for t in tokens[:256]) and all(t < 0 for t in tokens[256:])
    assert (table.refused_flows, table.refused_hits) == (44, 44)
    for i in range(300):  # again: known flows are found, refused ones are no new flows
        token = table.open(ft.UDP, ft.OUT, HOST, 1000 + i, PEER, 53)
        assert token == tokens[i]
        assert table.count_out(token, i) == (1 if i < 256 else 0)
    assert (table.refused_flows, table.refused_hits) == (44, 88)
    rows = drain(table)
    assert [(row[4] - 1000, row[8], row[9]) for row in rows] == [(i, i, 1) for i in range(256)]
    # The next cycle has room again, and a flow that is refused again counts again.
    for i in range(257):
        table.open(ft.UDP, ft.OUT, HOST, 1256 + i, PEER, 53)
    assert (table.live, table.refused_flows, table.high_water) == (256, 45, 256)


def test_the_token_of_a_refused_flow_does_nothing_in_a_small_table():
    table = ft.FlowTable(16)
    for i in range(16):
        table.open(ft.TCP, ft.OUT, HOST, i, PEER, 80)
    token = table.open(ft.TCP, ft.OUT, HOST, 99, PEER, 80)
    table.set_app(token, 9)
    assert table.count_in(token, 1) == table.count_out(token, 1) == 0
    assert all((row[2], row[7], row[8]) == (0, 0, 0) for row in drain(table))


def test_drop_oldest_replaces_in_order_of_arrival():
    table = ft.FlowTable(16, ft.DROP_OLDEST)
    first = table.open(ft.TCP, ft.OUT, HOST, 0, PEER, 80)
    for i in range(1, 40):
        table.open(ft.TCP, ft.OUT, HOST, i, PEER, 80)
        table.open(ft.TCP, ft.OUT, HOST, i, PEER, 80)
    assert table.count_in(first, 1) == 0
    assert (table.live, table.evicted, table.refused_hits) == (16, 24, 0)
    assert sorted((row[4], row[9]) for row in drain(table)) == [(i, 2) for i in range(24, 40)]


def test_tokens_are_stale_after_a_drain_even_when_the_slot_is_used_again():
    table = ft.FlowTable()
    old = table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    drain(table)
    assert table.count_in(old, 5) == 0
    new = table.open(ft.TCP, ft.OUT, HOST, 2, PEER, 80)
    assert table.count_in(old, 5) == 0 and table.count_out(old, 5) == 0
    table.set_app(old, 9)
    assert table.count_in(new, 6) == 1
    (row,) = drain(table)
    assert (row[2], row[4], row[7], row[8]) == (0, 2, 6, 0)
    for never_given in (0, -1, 255, 1 << 29, -(1 << 29)):
        assert table.count_in(never_given, 1) == 0


def test_a_token_stays_stale_when_its_slot_was_claimed_very_often():
    table = ft.FlowTable(16, ft.DROP_OLDEST)
    old = table.open(ft.TCP, ft.OUT, HOST, 0, PEER, 80)
    for i in range(16 * 600):
        table.open(ft.TCP, ft.OUT, HOST, i % 60000 + 1, PEER, 80)
        assert i < 15 or table.count_in(old, 1) == 0, i


def test_counters_stop_at_their_greatest_value():
    table = ft.FlowTable()
    token = table.open(ft.UDP, ft.OUT, HOST, 1, PEER, 80)
    for size in (1 << 31, (1 << 31) - 2, 1, 1, 1, 1 << 31):
        table.count_in(token, size)
        table.count_out(token, size)
    (row,) = drain(table)
    assert row[7:10] == (0xFFFFFFFF, 0xFFFFFFFF, 12)


def test_hits_stop_at_their_greatest_value():
    table = ft.FlowTable()
    tcp = table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    udp = table.open(ft.UDP, ft.OUT, HOST, 1, PEER, 80)
    # Nobody waits for 2**32 hits: put them there, at the end of the first and the second slot.
    for slot in range(2):
        table._buf[708 + 44 * slot : 712 + 44 * slot] = b"\xfe\xff\xff\xff"
    for _ in range(3):
        table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
        table.count_in(udp, 1)
        table.count_out(udp, 1)
    assert tcp > 0 and [row[9] for row in drain(table)] == [0xFFFFFFFF, 0xFFFFFFFF]


def test_time_stops_at_its_greatest_value():
    table = ft.FlowTable()
    table.tick(1 << 29)
    token = table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    assert table.count_in(token, 1) == 1
    assert drain(table)[0][10:] == (0xFFFFFF, 0xFFFFFF)
    table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    assert drain(table)[0][10:] == (0, 0)  # a new cycle has a clock of its own


def test_flows_of_local_addresses_without_room_are_kept_without():
    for policy in (ft.DROP_NEW, ft.DROP_OLDEST):
        table = ft.FlowTable(32, policy)
        tokens = [table.open(ft.TCP, ft.OUT, bytes([10, 0, 0, i]), 1, PEER, 80) for i in range(17)]
        assert table.open(ft.TCP, ft.OUT, bytes([10, 0, 0, 14]), 1, PEER, 80) == tokens[14]
        assert tokens[16] == tokens[15] > 0  # they cannot be told apart
        assert table.open(ft.TCP, ft.OUT, None, 1, PEER, 80) == tokens[15]
        assert table.refused_flows == table.refused_hits == 0
        hits = [(row[3] and row[3][3], row[9]) for row in drain(table)]
        assert hits == [(None, 3)] + [(i, 1) for i in range(14)] + [(14, 2)]
        table.open(ft.TCP, ft.OUT, bytes([10, 0, 0, 16]), 1, PEER, 80)
        assert drain(table)[0][3] == bytes([10, 0, 0, 16])


def test_a_short_buffer_is_refused_and_nothing_is_lost():
    table = ft.FlowTable()
    table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    assert refused(table.drain, bytearray(40))
    assert len(drain(table)) == 1


def test_what_has_no_room_in_a_snapshot_stays_and_goes_on_counting():
    for policy in (ft.DROP_NEW, ft.DROP_OLDEST):
        table = ft.FlowTable(64, policy)
        flows = [(HOST, port, os.urandom(16), 53) for port in range(40)]
        for flow in flows:
            token = table.open(ft.UDP, ft.OUT, *flow)
            table.count_out(token, 1000 + flow[1])
        expected = {flow: 1000 + flow[1] for flow in flows}
        while table.live:
            buffer = bytearray(300)
            assert table.drain(buffer) <= 300
            for row in ft.unpack(buffer):
                assert expected.pop(row[3:7]) == row[8]
            assert table.live == len(expected)
            assert table.count_out(token, 1) == 0  # the cycle has ended, and all tokens
            for flow in expected:  # each is found where it is now
                token = table.open(ft.UDP, ft.OUT, *flow)
                table.count_out(token, 7)
                expected[flow] += 7
            assert table.live == len(expected)
        assert expected == {}


def test_a_drain_that_runs_out_of_heap_loses_nothing():
    table = ft.FlowTable()
    flows = [(HOST, port, os.urandom(16), 53) for port in range(100)]
    tokens = [table.open(ft.UDP, ft.OUT, *flow) for flow in flows]
    for token in tokens:
        table.count_out(token, 10)
    view = bytearray(table.snapshot_size())
    plain, packed = ft._pack, []

    def pack(*arguments):
        if not packed:
            packed.append(True)
            micropython.heap_lock()
        return plain(*arguments)

    ft._pack = pack
    try:
        table.drain(view)
        raise AssertionError("this needs heap")
    except MemoryError:
        pass
    finally:
        micropython.heap_unlock()
        ft._pack = plain
    assert table.live == 100
    assert not any([table.count_out(token, 1) for token in tokens])
    for flow in flows:  # no look-up goes round in circles
        table.count_out(table.open(ft.UDP, ft.OUT, *flow), 1)
    sent = {}
    for row in drain(table):
        sent[row[4]] = sent.get(row[4], 0) + row[8]
    assert sent == {port: 11 for port in range(100)}


def test_sizes_out_of_range_are_refused():
    for slots in (0, 15, 257):
        assert refused(ft.FlowTable, slots)
    table = ft.FlowTable(64)
    assert refused(table.configure, 65, ft.DROP_NEW)
    table.configure(16, ft.DROP_NEW)
    for i in range(17):
        table.open(ft.TCP, ft.OUT, HOST, i, PEER, 80)
    assert (table.live, table.refused_flows) == (16, 1)
    assert refused(table.configure, 64, ft.DROP_NEW)  # flows would be lost


def test_a_snapshot_brings_together_what_a_report_says_once():
    random.seed(7)
    table = ft.FlowTable()
    numbers = (0, 1, 255, 256, 65535, 65536, (1 << 24) - 1, 1 << 24, (1 << 32) - 1)
    expected = []
    for i in range(200):
        remote = os.urandom(16) if i % 5 == 0 else bytes([10, 0, 1, random.getrandbits(3)])
        protocol = (ft.TCP, ft.UDP, ft.ICMP)[i % 3]
        local = bytes([10, 0, 0, i % 4])
        ends = (local, i, None if i % 50 == 1 else remote, 80)
        received, sent = random.choice(numbers), random.choice(numbers)
        second = i * 300
        table.tick(second)
        token = table.open(protocol, i & 1, *ends, i % 3)
        table.count_in(token, received)
        table.count_out(token, sent)
        hits = 2 if protocol == ft.UDP else 1
        expected.append((protocol, i & 1, i % 3) + ends + (received, sent, hits, second, second))
    buffer = bytearray(table.snapshot_size())
    size = table.drain(buffer)
    rows = list(ft.unpack(buffer))
    assert sorted(rows, key=str) == sorted(expected, key=str)
    for runs in ([row[:4] for row in rows], [row[:4] + row[5:6] for row in rows]):
        changes = sum(1 for i in range(1, len(rows)) if runs[i] != runs[i - 1])
        assert changes + 1 == len(set(str(run) for run in runs))
    runs = list(ft.remotes(buffer))
    assert runs[0] == (0, rows[0][5])
    for number, remote in runs[1:]:
        assert rows[number][5] == remote != rows[number - 1][5]
    assert len(runs) == 1 + sum(1 for i in range(1, 200) if rows[i][5] != rows[i - 1][5])
    assert size < 200 * 32


def test_bytes_to_one_peer_are_summed_over_its_flows():
    table = ft.FlowTable()
    peers = (PEER, HOST6, b"\0" * 4)
    for number, peer in enumerate(peers * 3):
        token = table.open(ft.UDP, ft.OUT, HOST, 40000 + number, peer, 53)
        table.count_out(token, 10 ** (number % 3) * 7)
        table.count_in(token, 5)
    table.open(ft.TCP, ft.IN, HOST, 80, None, 0)
    assert [table.peek(i) for i in range(3)] == list(peers) and table.peek(9) is None
    assert [table.sent_to(i) for i in range(3, 6)] == [21, 210, 2100]
    most = (1 << 30) - 1
    for size, total in ((most - 210, most), (1, most), (1 << 30, most), (1 << 30, most)):
        table.count_out(table.open(ft.TCP, ft.OUT, HOST, 1, HOST6, 443), size)
        assert table.sent_to(1) == total, (size, table.sent_to(1))


def test_the_hot_path_and_the_look_up_take_no_heap():
    table = ft.FlowTable()
    tcp = table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)
    udp = table.open(ft.UDP, ft.OUT, HOST6, 0xFFFF, b"\xff" * 16, 0xFFFF)
    big = 1 << 31
    tcp_protocol, out = ft.TCP, ft.OUT
    micropython.heap_lock()
    try:
        for _ in range(3):  # the counters pass 2**31 and stop at 2**32 - 1
            table.count_in(tcp, big)
            table.count_out(tcp, big)
            table.count_in(udp, big)
            table.count_out(udp, big)
            table.open(tcp_protocol, out, HOST, 1, PEER, 80)
    finally:
        micropython.heap_unlock()
    assert [row[7:10] for row in drain(table)] == [(0xFFFFFFFF,) * 2 + (h,) for h in (4, 6)]


def test_what_counts_keeps_its_table():
    def first(table):
        return table.count_out, table.open(ft.TCP, ft.OUT, HOST, 1, PEER, 80)

    kept = []
    for _ in range(8):  # the collector may hold one for what stands on the stack
        kept.append(first(ft.FlowTable(16)))
    gc.collect()
    other = [bytearray(b"\xff" * 1024) for _ in range(64)]
    assert [count(token, 5) for count, token in kept] == [1] * 8
    assert all(block == b"\xff" * 1024 for block in other)


class Model:
    """What the table should do, said with a dict."""

    def __init__(self, slots, policy):
        self.slots, self.policy, self.flows, self.evicted = slots, policy, {}, 0
        self.refused, self.refused_hits = set(), 0
        self.counted = self.table_before = 0  # refused flows, by model and by table
        self.order = []

    def see(self, key, received, sent):
        if key not in self.flows:
            if len(self.flows) == self.slots:
                if self.policy == ft.DROP_NEW:
                    self.refused.add(key)
                    self.refused_hits += 1
                    return
                self.evicted += 1
                del self.flows[self.order.pop(0)]
            self.flows[key] = [0, 0, 0]
            self.order.append(key)
        flow = self.flows[key]
        flow[0] += received
        flow[1] += sent
        flow[2] += 2 if key[0] == ft.UDP else 1

    def take(self):
        self.counted += len(self.refused)
        flows, self.flows, self.order, self.refused = self.flows, {}, [], set()
        return flows


def test_it_does_what_a_plain_model_does():
    refused = missed = 0
    for seed in range(30):
        random.seed(seed)
        policy = (ft.DROP_NEW, ft.DROP_OLDEST)[seed & 1]
        slots = random.choice((16, 17, 100, 256))
        table, model = ft.FlowTable(slots, policy), Model(slots, policy)
        for _ in range(4):
            for _ in range(random.randrange(600)):
                protocol = random.choice((ft.TCP, ft.UDP, ft.ICMP))
                key = (
                    protocol,
                    random.choice((None, HOST, HOST6)),
                    random.getrandbits(3),
                    random.choice((PEER, HOST6, HOST)),
                    random.getrandbits(3),
                )
                received, sent = random.getrandbits(20), random.getrandbits(20)
                token = table.open(protocol, ft.OUT, key[1], key[2], key[3], key[4])
                counted = table.count_in(token, received) + table.count_out(token, sent)
                assert counted == (2 if token > 0 else 0)
                model.see(key, received, sent)
            before = model.counted
            expected = model.take()
            by_model, by_table = model.counted - before, table.refused_flows - model.table_before
            if by_model <= 100:  # flows may share 16 bits of their hashes
                assert by_model >= by_table
                refused += by_model
                missed += by_model - by_table
            model.table_before = table.refused_flows
            rows = drain(table)
            assert len(rows) == len(expected)
            for row in rows:
                assert expected[key_of(row)] == list(row[7:10]), row
        assert table.evicted == model.evicted
        assert table.refused_hits == model.refused_hits
    assert missed * 20 <= refused, (missed, refused)
