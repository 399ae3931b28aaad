"""The flow table: a fixed array of slots that aggregates network flows by their five-tuple.

One preallocated buffer holds all of it, and nothing is allocated afterwards. A known flow is
looked up before anything is claimed, so it keeps counting when the table is full; what finds no
room is counted, flows and hits apart.

A hit is one sighting of a flow: the opening of a TCP connection, a UDP datagram, an ICMP message.
A connection that was opened in an earlier cycle and goes on counts as seen once.

Buckets are chosen by multiply-shift hashing over the 16-bit halves of a key with random
multipliers (Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer
arithmetic without primes", STACS 1996). It is universal: no peer can choose flows that collide.

All numbers in the buffer are little-endian, as on every MicroPython board. What has to be quick,
or has numbers that would need the heap, is viper code; a board copies that into its RAM.
"""

import os
import struct

from micropython import const

TCP = const(6)
UDP = const(17)
ICMP = const(1)  # ICMPv6 too
IN = const(0)
OUT = const(1)
DROP_NEW = const(0)  # the rule of RTOS-class devices
DROP_OLDEST = const(1)  # the rule of Linux
MAX_SLOTS = const(256)

# The buffer, in words of 32 bits.
_CYCLE = const(0)  # this cycle's number, shifted as `_cycle` is
_KEY = const(1)  # a slot as one is made: with the key that is looked for, seen now
_SEEDS = const(12)  # 11 words: a multiplier for each 16-bit half of a key
_HEADS = const(23)  # 32 half-words: the first slot of each bucket, plus one
_REFUSED = const(39)  # 128 half-words: tags of the flows that this cycle refused
_POOL = const(103)  # local addresses, 4 words each, and room for one that is not claimed yet
_SLOTS = const(167)

_MAX_LOCALS = const(15)

# A slot, in words: the remote address in 4, the ports,
_PORTS = const(4)
_FIRST = const(6)  # 24 bits of seconds; the top byte is the generation
_LAST = const(7)
_BYTES_IN = const(8)
_BYTES_OUT = const(9)
_HITS = const(10)
_WORDS = const(11)
# in half-words
_RPORT = const(8)
_LPORT = const(9)
_META = const(10)  # from bit 0: 8 local address, from 1; 5 application; 1 direction; 2 kind
_NEXT = const(11)  # the next slot of the bucket, plus one
# and in bytes.
_APP = const(21)
_GENERATION = const(27)  # how often the slot was claimed

_IDENTITY = const(0xC0FF)  # the bits of META that belong to the key: kind and local address
_KINDS = (TCP, UDP, ICMP)
_UDP = const(1)  # its place in them
# A token is cycle << 16 | generation << 8 | slot: cycles have numbers from 1 to 2**14 - 1. As a
# generation comes round after 256 claims of a slot, of 16 at least, _CLAIMS evictions end all
# tokens too.
_CYCLES = const(0x3FFF00)  # shifted by 8, as in a token that is shifted back by 8
_CLAIMS = const(2048)
_NO_ROOM = const(-256)  # a token for slot 0, which every table has, but of no cycle
_SECONDS = const(0xFFFFFF)
_MAX_COUNT = const(0x3FFFFFFF)  # the largest counter that needs no heap on 32 bit

# A snapshot: number of flows (2 bytes), number of local addresses, 0; the addresses; the flows,
# each without what it shares with the one before: 3 bytes of widths (3 bits each for _FIRST to
# _HITS from the highest on, above them _REMOTE, _WIDE and _NEW); with _REMOTE the remote address,
# of 16 bytes with _WIDE, else 4; the ports; with _NEW the two bytes of META; the numbers.
_HEADER = const(4)
_ADDRESS = const(16)
_RECORD = const(44)  # bytes of a slot, and the most that a flow takes in a snapshot
_REMOTE = const(1)
_WIDE = const(2)
_NEW = const(4)


@micropython.viper
def _start(buf) -> int:
    return int(ptr8(buf))


def _counter(buf, offset):
    # What `count_in` and `count_out` are; `offset` is that of their counter behind that of the
    # bytes received. Closures over the buffer's address: to look the buffer up, or to ask it where
    # it is, costs as much as to count. A buffer is aligned to 16 bytes, as the heap's blocks are.
    at = _start(buf) + offset

    @micropython.viper
    def count(token: int, size: int) -> int:
        base = int(at)
        p = ptr32(base & -16)
        s = ptr32(int(p) + 4 * _SLOTS + _RECORD * (token & 0xFF))
        if token >> 8 != p[_CYCLE] | ptr8(s)[_GENERATION]:
            return 0
        s[_LAST] = p[_KEY + _LAST]
        counter = ptr32(int(s) + 4 * _BYTES_IN + (base & 15))
        counter[0] = counter[0] + size
        if uint(counter[0]) < uint(size) and buf:  # the closure has to keep the buffer
            counter[0] = -1
        if ptr8(s)[_APP] >> 6 == _UDP:
            s[_HITS] = s[_HITS] + 1
            if s[_HITS] == 0:
                s[_HITS] = -1
        return 1

    return count


class FlowTable:
    """A table of `slots` flows (16 to 256) under one of the two rules for a full table.

    A cycle has room for 15 distinct local addresses: flows of further ones are kept without.
    Errors: ValueError for numbers out of range.

    count_in(token, size) and count_out(token, size) add bytes received or sent: they return 1, or
    0 for a stale token: `open` the flow again. They take no heap and do not raise; counters of
    bytes and hits stop at 2**32 - 1.

    `live` is the number of flows in the table. These count since the start, and stop at 2**30 - 1:
    `high_water`, the most flows there ever were at once; `refused_flows` that found no room, each
    once a cycle, told apart by 16 bits of its hash, and beyond 128 in a cycle at each sighting;
    `refused_hits`, their sightings; `evicted`, flows that gave way to newer ones.
    """

    def __init__(self, slots=MAX_SLOTS, policy=DROP_NEW):
        self._buf = buf = bytearray(4 * _SLOTS + _RECORD * slots)
        buf[4 * _SEEDS : 4 * _HEADS] = os.urandom(4 * (_HEADS - _SEEDS))
        self.count_in = _counter(buf, 0)
        self.count_out = _counter(buf, 4 * (_BYTES_OUT - _BYTES_IN))
        self.live = self.high_water = self.refused_flows = self.refused_hits = self.evicted = 0
        self._cycle = 0
        self.configure(slots, policy)
        self.clear()

    def configure(self, slots, policy):
        """Use `slots` of the allocated slots, under `policy`. The table must be empty."""
        room = (len(self._buf) - 4 * _SLOTS) // _RECORD
        if not 16 <= slots <= min(room, MAX_SLOTS) or self.live:
            raise ValueError("slots: 16 to what was allocated, in an empty table")
        self._slots = slots
        self._policy = policy

    def tick(self, seconds):
        """Set the clock: seconds since this cycle began. First and last seen are read from it."""
        seconds = min(seconds, _SECONDS)
        struct.pack_into("<II", self._buf, 4 * (_KEY + _FIRST), seconds, seconds)

    def open(self, protocol, direction, laddr, lport, raddr, rport, app=0):
        """Find the flow's slot or claim one; return the token for `count_in` and `count_out`.

        Addresses are 4 or 16 bytes, None where unknown; ports 0 where unknown; `app` is a code of
        0 to 31 that the table only carries. Counts a hit, but not for UDP, where each counted
        datagram is one. A flow that finds no room is counted as refused; its token is negative.
        """
        kind = 0 if protocol == TCP else _UDP if protocol == UDP else 2
        local = 0
        if laddr:
            self._store(4 * _POOL + _ADDRESS * self._locals, laddr, len(laddr))
            local = self._local(self._locals)
            if local > _MAX_LOCALS:
                local = 0
        self._store(4 * _KEY, raddr or b"", len(raddr or b""))
        meta = kind << 14 | direction << 13 | app << 8 | local
        struct.pack_into("<3H", self._buf, 4 * _KEY + 2 * _RPORT, rport, lport, meta)
        place = self._hash(_KEY)
        slot = self._find(place) or self._claim(place, local)
        return self._sight(slot) if slot else _NO_ROOM

    @micropython.viper
    def _store(self, at: int, address, size: int):
        # An address of 4 or 16 bytes as 16 (RFC 4291 section 2.5.5.2); no address as zeros.
        out = ptr8(int(ptr8(self._buf)) + at)
        data = ptr8(address)
        i = 16
        while i:
            i -= 1
            size -= 1
            out[i] = data[size] if size >= 0 else 0
        if size == 4 - 16:
            out[10] = 255
            out[11] = 255

    @micropython.viper
    def _local(self, count: int) -> int:
        # The place in the pool, from 1, of the address that stands behind those in use. If it is a
        # new one, it counts once `_claim` takes it.
        p = ptr32(int(ptr8(self._buf)) + 4 * _POOL)
        new = ptr32(int(p) + _ADDRESS * count)
        place = 1
        while p[0] != new[0] or p[1] != new[1] or p[2] != new[2] or p[3] != new[3]:
            p = ptr32(int(p) + _ADDRESS)
            place += 1
        return place

    @micropython.viper
    def _hash(self, at: int) -> int:
        # 25 bits of the hash of the key at this word; the top 5 choose the bucket.
        p = ptr32(self._buf)
        seeds = ptr32(int(p) + 4 * _SEEDS)
        h = ptr16(int(p) + 4 * at)
        total = seeds[_META] * (h[_META] & _IDENTITY)
        i = 0
        while i < _META:
            total += seeds[i] * h[i]
            i += 1
        return total >> 7 & 0x1FFFFFF

    @micropython.viper
    def _find(self, place: int) -> int:
        # The slot of the key, plus one; 0 where there is none.
        p = ptr16(self._buf)
        k = ptr32(int(p) + 4 * _KEY)
        slot = p[2 * _HEADS + (place >> 20)]
        while slot:
            s = ptr32(int(p) + 4 * _SLOTS - _RECORD + _RECORD * slot)
            if s[_PORTS] == k[_PORTS] and (s[_PORTS + 1] ^ k[_PORTS + 1]) & _IDENTITY == 0:
                if s[0] == k[0] and s[1] == k[1] and s[2] == k[2] and s[3] == k[3]:
                    break
            slot = ptr16(s)[_NEXT]
        return slot

    def _claim(self, place, local):
        # A slot for the key, plus one; 0 where the flow is refused.
        slot = self.live
        full = slot == self._slots
        if full and self._policy == DROP_NEW:
            self.refused_hits = min(self.refused_hits + 1, _MAX_COUNT)
            self.refused_flows = min(self.refused_flows + self._is_new(place), _MAX_COUNT)
            return 0
        if full:
            slot = self._oldest
            self._oldest = (slot + 1) % self._slots
            self._unlink(slot)
            self.evicted = min(self.evicted + 1, _MAX_COUNT)
            if self.evicted % _CLAIMS == 0:
                self._renew()
        else:
            self.live = slot + 1
            self.high_water = max(self.high_water, slot + 1)
        self._locals = max(local, self._locals)
        self._fill(slot)
        self._link(place, slot)
        return slot + 1

    @micropython.viper
    def _is_new(self, place: int) -> int:
        # 1 unless this cycle refused the flow before: a small set remembers 16 bits of each
        # refused flow's hash.
        tags = int(ptr16(self._buf)) + 4 * _REFUSED
        tag = place & 0xFFFF or 1
        end = place + 128
        while place < end:
            known = ptr16(tags + 2 * (place & 127))
            if known[0] == tag:
                return 0
            if known[0] == 0:
                known[0] = tag
                break
            place += 1
        return 1

    def _unlink(self, slot):
        # Takes the slot out of its bucket's chain.
        buf = self._buf
        after = 4 * _SLOTS + _RECORD * slot + 2 * _NEXT
        link = 4 * _HEADS + 2 * (self._hash(_SLOTS + _WORDS * slot) >> 20)
        while True:
            other = buf[link] | buf[link + 1] << 8
            if other == slot + 1:
                break
            link = 4 * _SLOTS - _RECORD + _RECORD * other + 2 * _NEXT
        buf[link] = buf[after]
        buf[link + 1] = buf[after + 1]

    @micropython.viper
    def _fill(self, slot: int):
        # Makes the slot, under a new generation.
        p = ptr32(self._buf)
        s = ptr32(int(p) + 4 * _SLOTS + _RECORD * slot)
        generation = ptr8(s)[_GENERATION] + 1
        i = 0
        while i < _WORDS:
            s[i] = p[_KEY + i]
            i += 1
        ptr8(s)[_GENERATION] = generation

    @micropython.viper
    def _link(self, place: int, slot: int):
        # Puts the slot first in its bucket.
        p = int(ptr8(self._buf))
        head = ptr16(p + 4 * _HEADS + 2 * (place >> 20))
        ptr16(p + 4 * _SLOTS + _RECORD * slot)[_NEXT] = head[0]
        head[0] = slot + 1

    @micropython.viper
    def _sight(self, place: int) -> int:
        # Marks the slot (plus one) as seen now, with a hit unless it is UDP's; returns its token.
        p = ptr32(self._buf)
        s = ptr32(int(p) + 4 * _SLOTS - _RECORD + _RECORD * place)
        s[_LAST] = p[_KEY + _LAST]
        if ptr8(s)[_APP] >> 6 != _UDP:
            s[_HITS] = s[_HITS] + 1
            if s[_HITS] == 0:
                s[_HITS] = -1
        return (p[_CYCLE] | ptr8(s)[_GENERATION]) << 8 | place - 1

    def set_app(self, token, app):
        """Set the flow's application code, known after its first payload; no effect if stale."""
        at = 4 * _SLOTS + _RECORD * (token & 0xFF)
        if token >> 8 == self._cycle | self._buf[at + _GENERATION]:
            self._buf[at + _APP] = self._buf[at + _APP] & 0xE0 | app

    def peek(self, index):
        """The remote address of flow `index`, below `live`: 4 or 16 bytes, None where unknown."""
        return _address(self._buf, 4 * _SLOTS + _RECORD * index)

    def sent_to(self, index):
        """Bytes out of all flows with the remote address of flow `index`; stops at 2**30 - 1."""
        return self._sent(4 * _SLOTS + _RECORD * index, self.live)

    @micropython.viper
    def _sent(self, at: int, count: int) -> int:
        p = ptr32(self._buf)
        a = ptr32(int(p) + at)
        total = 0
        while count:
            count -= 1
            s = ptr32(int(p) + 4 * _SLOTS + _RECORD * count)
            if s[0] == a[0] and s[1] == a[1] and s[2] == a[2] and s[3] == a[3]:
                sent = s[_BYTES_OUT]
                if sent < 0 or sent > _MAX_COUNT - total:
                    return _MAX_COUNT
                total += sent
        return total

    def snapshot_size(self):
        """Bytes into which all that is in the table now fits as a snapshot."""
        size = _HEADER + _ADDRESS * self._locals + _RECORD
        flow = bytearray(_RECORD)
        for slot in range(self.live):
            size += _pack(self._buf, 4 * _SLOTS + _RECORD * slot, flow, 0)
        return size

    def drain(self, into):
        """Move flows into `into` as a snapshot, as many as have room; return its size in bytes.

        Flows that share what a report can say once are neighbours there: they come by protocol,
        direction, application and local address, then by remote address. One step: what is
        counted afterwards belongs to a new cycle, but that the clock goes on while flows are left,
        until a later call takes them. Errors: ValueError, and the table as it was, where `into`
        has no room for one flow.
        """
        at = _HEADER + _ADDRESS * self._locals
        end = len(into) - _RECORD
        if at > end:
            raise ValueError("buffer too small")
        table = memoryview(self._buf)
        struct.pack_into("<HBx", into, 0, 0, self._locals)
        into[_HEADER:at] = table[4 * _POOL : 4 * _POOL + at - _HEADER]
        self._renew()
        _sort(self._buf, self.live)
        # Without heap from here on the flows stay, but nothing leads to them until a later call.
        count = 0
        while count < self.live and at <= end:
            at = _pack(self._buf, 4 * _SLOTS + _RECORD * count, into, at)
            count += 1
        into[0] = count & 255
        into[1] = count >> 8
        left = self.live - count
        if left:
            start = 4 * _SLOTS + _RECORD * count
            table[4 * _SLOTS : 4 * _SLOTS + _RECORD * left] = table[start : start + _RECORD * left]
            for slot in range(left):
                self._link(self._hash(_SLOTS + _WORDS * slot), slot)
            self.live = left
            self._oldest = 0
        else:
            self.clear()
        return at

    def clear(self):
        """Empty the table and start a new cycle; what was in it is forgotten."""
        self._buf[4 * _HEADS : 4 * _SLOTS] = bytes(4 * (_SLOTS - _HEADS))
        self.live = self._oldest = self._locals = 0
        self._renew()
        self.tick(0)

    def _renew(self):
        # Ends all tokens: whoever has one opens its flow again.
        self._cycle = self._cycle % _CYCLES + 256
        struct.pack_into("<I", self._buf, 4 * _CYCLE, self._cycle)


@micropython.viper
def _sort(table, count: int):
    # A Shell sort of the slots. As what links them is no good afterwards, all buckets are emptied.
    heads = ptr32(int(ptr8(table)) + 4 * _HEADS)
    word = 0
    while word < _REFUSED - _HEADS:
        heads[word] = 0
        word += 1
    start = int(ptr8(table)) + 4 * _SLOTS
    end = start + _RECORD * count
    gap = 121 * _RECORD
    while gap:
        next = start + gap
        while next < end:
            at = next
            while at >= start + gap:
                # Compare with the record a gap before; exchange if it belongs behind.
                a = ptr32(at - gap)
                b = ptr32(at)
                first = ptr16(a)[_META]
                second = ptr16(b)[_META]
                word = 0
                while first == second and word < 4:
                    first = a[word]
                    second = b[word]
                    word += 1
                if first <= second:
                    break
                word = 0
                while word < _WORDS:
                    first = a[word]
                    a[word] = b[word]
                    b[word] = first
                    word += 1
                at -= gap
            next += _RECORD
        gap = gap // _RECORD // 3 * _RECORD


@micropython.viper
def _pack(table, flow: int, into, at: int) -> int:
    # Writes the flow at this offset of the table behind `at`; returns where it ends. At 0 it is
    # written as one that shares nothing.
    s = ptr32(int(ptr8(table)) + flow)
    before = ptr32(int(s) - _RECORD)
    raw = ptr8(s)
    out = ptr8(into)
    alone = at == 0 or flow == 4 * _SLOTS
    start = at
    at += 3
    head = 0
    i = 0
    while i < 4 and s[i] == before[i]:
        i += 1
    end = 0
    if i < 4 or alone:
        head = _REMOTE
        i = 12
        if s[0] or s[1] or ptr16(s)[4] or ptr16(s)[5] != 0xFFFF:
            head = _REMOTE | _WIDE
            i = 0
        end = 16
    word = _PORTS
    while True:
        while i < end:
            out[at] = raw[i]
            at += 1
            i += 1
        if word == _WORDS:
            break
        i = 4 * word
        if word == _PORTS:
            end = i + 4
            if alone or ptr16(s)[_META] != ptr16(before)[_META]:
                head |= _NEW
                end += 2
            word = _FIRST
        else:
            end = i + 4
            if word == _FIRST:
                end -= 1  # above it is the generation
            while end > i and raw[end - 1] == 0:
                end -= 1
            head = head << 3 | end - i
            word += 1
    out[start] = head
    out[start + 1] = head >> 8
    out[start + 2] = head >> 16
    return at


@micropython.viper
def _expand(snapshot, at: int, into) -> int:
    # Reads the flow at this offset into a slot that holds the one before; returns where it ends.
    raw = ptr8(snapshot)
    s = ptr32(into)
    out = ptr8(s)
    head = raw[at] | raw[at + 1] << 8 | raw[at + 2] << 16
    at += 3
    i = 0
    end = 0
    if head >> 15 & _REMOTE:
        end = 16
        if not head >> 15 & _WIDE:
            s[0] = s[1] = 0
            ptr16(s)[4] = 0
            ptr16(s)[5] = 0xFFFF
            i = 12
    word = _PORTS
    while True:
        while i < end:
            out[i] = raw[at]
            at += 1
            i += 1
        if word == _WORDS:
            return at
        i = 4 * word
        if word == _PORTS:
            end = i + 4 + (head >> 15 & _NEW) // 2
            word = _FIRST
        else:
            s[word] = 0
            end = i + (head >> 3 * (_HITS - word) & 7)
            word += 1


def _slots(snapshot):
    # Yields for each flow the slot that it is in, which is always the same, and whether a run of
    # flows with another remote address begins.
    slot = bytearray(_RECORD)
    at = _HEADER + _ADDRESS * snapshot[2]
    for _ in range(snapshot[0] | snapshot[1] << 8):
        begins = snapshot[at + 1] >> 7 & _REMOTE
        at = _expand(snapshot, at, slot)
        yield slot, begins


def remotes(snapshot):
    """Yields (number of its first flow, remote address) for each run of flows that share it.

    `snapshot` is what `FlowTable.drain` wrote; more may follow it.
    """
    for number, (slot, begins) in enumerate(_slots(snapshot)):
        if begins:
            yield number, _address(slot, 0)


def unpack(snapshot):
    """Yields each flow of a snapshot that `FlowTable.drain` wrote, as a tuple.

    (protocol, direction, app, local address, local port, remote address, remote port, bytes in,
    bytes out, hits, first seen, last seen): addresses as 4 or 16 bytes or None, seen in seconds
    since the cycle began.
    """
    for slot, _ in _slots(snapshot):
        rport, lport, meta, _, first, last, received, sent, hits = struct.unpack_from(
            "<4H5I", slot, 2 * _RPORT
        )
        local = meta & 0xFF
        yield (
            _KINDS[meta >> 14],
            meta >> 13 & 1,
            meta >> 8 & 31,
            _address(snapshot, _HEADER + _ADDRESS * (local - 1)) if local else None,
            lport,
            _address(slot, 0),
            rport,
            received,
            sent,
            hits,
            first,
            last,
        )


def _address(snapshot, at):
    address = bytes(snapshot[at : at + _ADDRESS])
    if address[:12] == b"\0\0\0\0\0\0\0\0\0\0\xff\xff":
        return address[12:]
    return address if any(address) else None
