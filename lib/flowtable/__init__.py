"""The flow table: a fixed array of slots that aggregates network flows by their five-tuple.

One preallocated buffer holds all of it, and nothing is allocated afterwards. A known flow is
looked up before anything is claimed, so it keeps counting when the table is full; what finds no
room is counted, flows and hits apart.

A hit is one sighting of a flow: the opening of a TCP connection, a UDP datagram, an ICMP message.
A connection that was opened in an earlier cycle and goes on counts as seen once.

Buckets are chosen by multiply-shift hashing over the 16-bit halves of a key with random
multipliers (Dietzfelbinger, "Universal hashing and k-wise independent random variables via integer
arithmetic without primes", STACS 1996). It is universal: no peer can choose flows that collide.

All numbers in the buffer are little-endian, as on every MicroPython board.
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
_NOW = const(0)  # seconds since the cycle began, 24 bits
_LIVE = const(1)
_OLDEST = const(2)
_SLOTS = const(3)
_POLICY = const(4)
_LOCALS = const(5)  # local addresses in use
_MAX_LOCALS = const(6)
_HIGH_WATER = const(7)
_REFUSED_FLOWS = const(8)
_REFUSED_HITS = const(9)
_EVICTED = const(10)
_BASE = const(11)  # where the slots begin
_KEY = const(12)  # 6 words: remote address, ports, identity (as in META)
_SEEDS = const(18)  # 12 words: a multiplier for each 16-bit half of a key
_HEADS = const(30)  # 128 half-words: the first slot of each bucket, plus one
_REFUSED = const(94)  # 128 half-words: tags of the flows that this cycle refused
_POOL = const(158)  # local addresses, 4 words each, and room for one that is not claimed yet

# A slot, in words.
_REMOTE = const(0)
_PORTS = const(4)  # local port << 16 | remote port
_BYTES_IN = const(5)
_BYTES_OUT = const(6)
_HITS = const(7)
_FIRST = const(8)  # 24 bits of seconds; the top byte is the low half of the generation
_LAST = const(9)  # 24 bits of seconds; the top byte is the high half of the generation
_META = const(10)  # from bit 0: 9 next slot plus one, 8 local, 5 application, 1 direction, 2 kind
_WORDS = const(11)

_NEXT = const(0x1FF)
_LOCAL_SHIFT = const(9)
_APP_SHIFT = const(17)
_DIRECTION_SHIFT = const(22)
_KIND_SHIFT = const(23)
_IDENTITY = const(0x181FE00)  # the bits of META that belong to the key: kind and local address

_KIND_UDP = const(1)
_KINDS = (TCP, UDP, ICMP)
# A token: slot, generation << 8, and these bits.
_TOKEN_UDP = const(1 << 24)  # a count is a hit
_TOKEN = const(1 << 25)  # set in every token
_REFUSED_TOKEN = const(-1)
_SECONDS = const(0xFFFFFF)
_MAX_COUNT = const(0x3FFFFFFF)  # the largest counter that needs no heap on 32 bit

# A snapshot: number of flows (2 bytes), number of local addresses, version; the addresses; the
# flows.
_HEADER = const(4)
_VERSION = const(1)
_ADDRESS = const(16)
_RECORD = const(44)
_MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"  # IPv4-mapped IPv6, RFC 4291 section 2.5.5.2


@micropython.viper
def _store(buf, at: int, address):
    # An address of 4 or 16 bytes as 16; no address as zeros.
    out = ptr8(int(ptr32(buf)) + 4 * at)
    data = ptr8(address)
    gap = 16 - int(len(address))
    i = 0
    while i < 16:
        out[i] = 0 if i < gap else data[i - gap]
        i += 1
    if gap == 12:
        out[10] = 255
        out[11] = 255


class FlowTable:
    """A table of `slots` flows (16 to 256) under one of the two rules for a full table.

    `max_locals` bounds the distinct local addresses of one cycle (1 to 255; 16 bytes each).
    Errors: ValueError for numbers out of range.
    """

    no_raise = True  # what nettap asks of count_in and count_out, to call them unguarded

    def __init__(self, slots=MAX_SLOTS, policy=DROP_NEW, max_locals=16):
        if not 1 <= max_locals <= 255:
            raise ValueError("max_locals: 1 to 255")
        self._capacity = slots
        base = _POOL + 4 * max_locals + 4
        self._buf = bytearray(4 * (base + _WORDS * slots))
        view = memoryview(self._buf)
        view[4 * _SEEDS : 4 * _HEADS] = os.urandom(4 * (_HEADS - _SEEDS))
        self._set(_MAX_LOCALS, max_locals)
        self._set(_BASE, base)
        self.configure(slots, policy)

    def configure(self, slots, policy):
        """Use `slots` of the allocated slots, under `policy`. The table must be empty."""
        if not 16 <= slots <= min(self._capacity, MAX_SLOTS) or self.live:
            raise ValueError("slots: 16 to what was allocated, in an empty table")
        self._set(_SLOTS, slots)
        self._set(_POLICY, policy)

    @micropython.viper
    def _get(self, at: int) -> int:
        return ptr32(self._buf)[at]

    @micropython.viper
    def _set(self, at: int, value: int):
        ptr32(self._buf)[at] = value

    @micropython.viper
    def _get_half(self, at: int) -> int:
        return ptr16(self._buf)[at]

    @micropython.viper
    def _set_half(self, at: int, value: int):
        ptr16(self._buf)[at] = value

    def _bump(self, at):
        # One more in a counter; it stops where it would need the heap.
        self._set(at, min(self._get(at) + 1, _MAX_COUNT))

    @property
    def live(self):
        """Flows in the table now."""
        return self._get(_LIVE)

    @property
    def high_water(self):
        """The most flows that were ever in the table at once."""
        return self._get(_HIGH_WATER)

    @property
    def refused_flows(self):
        """Flows that found no room, since the start.

        Each counts once a cycle, told apart by 16 bits of its hash; beyond 128 in a cycle, each
        sighting of a further one counts.
        """
        return self._get(_REFUSED_FLOWS)

    @property
    def refused_hits(self):
        """Sightings of flows that found no room, since the start."""
        return self._get(_REFUSED_HITS)

    @property
    def evicted(self):
        """Flows that gave way to newer ones, since the start."""
        return self._get(_EVICTED)

    def tick(self, seconds):
        """Set the clock: seconds since this cycle began. First and last seen are read from it."""
        self._set(_NOW, min(seconds, _SECONDS))

    def open(self, protocol, direction, laddr, lport, raddr, rport, app=0):
        """Find the flow's slot or claim one; return the token for `count_in` and `count_out`.

        Addresses are 4 or 16 bytes, None where unknown; ports 0 where unknown; `app` is a code of
        0 to 31 that the table only carries. Counts a hit, but not for UDP, where each counted
        datagram is one. A flow that finds no room is counted as refused; its token is -1.
        """
        kind = 0 if protocol == TCP else _KIND_UDP if protocol == UDP else 2
        identity = kind << _KIND_SHIFT | self._local(laddr or b"") << _LOCAL_SHIFT
        self._key(raddr or b"", lport, rport, identity)
        place = self._hash(_KEY, identity)
        slot = self._find(place, identity)
        if not slot:
            slot = self._claim(place, identity | app << _APP_SHIFT | direction << _DIRECTION_SHIFT)
        return self._sight(slot) if slot else _REFUSED_TOKEN

    def _local(self, address):
        # The address's place in the pool, from 1; 0 is "unknown". A new one is written past those
        # in use, where it counts once `_claim` takes it.
        if not address:
            return 0
        _store(self._buf, _KEY, address)
        place = 0
        while place < self._get(_LOCALS) and not self._same(_POOL + 4 * place, _KEY):
            place += 1
        _store(self._buf, _POOL + 4 * place, address)
        return place + 1

    @micropython.viper
    def _same(self, at: int, other: int) -> int:
        # Whether the addresses at these two places are equal.
        p = ptr32(self._buf)
        i = 0
        while i < 4:
            if p[at + i] != p[other + i]:
                return 0
            i += 1
        return 1

    @micropython.viper
    def _key(self, raddr, lport: int, rport: int, identity: int):
        # Writes the key that is looked for.
        p = ptr32(self._buf)
        _store(self._buf, _KEY, raddr)
        p[_KEY + _PORTS] = lport << 16 | rport
        p[_KEY + _PORTS + 1] = identity

    @micropython.viper
    def _hash(self, at: int, identity: int) -> int:
        # 25 bits of the hash of the remote address and ports here; the top 7 choose the bucket.
        p = ptr32(self._buf)
        total = p[_SEEDS + 10] * (identity & 0xFFFF) + p[_SEEDS + 11] * (identity >> 16)
        i = 0
        while i < 5:
            word = p[at + i]
            total += p[_SEEDS + 2 * i] * (word & 0xFFFF)
            total += p[_SEEDS + 2 * i + 1] * (word >> 16 & 0xFFFF)
            i += 1
        return total >> 7 & 0x1FFFFFF

    @micropython.viper
    def _find(self, place: int, identity: int) -> int:
        # The flow's slot, plus one; 0 where there is none.
        p = ptr32(self._buf)
        slot = ptr16(self._buf)[2 * _HEADS + (place >> 18)]
        while slot:
            at = p[_BASE] - _WORDS + _WORDS * slot
            if p[at + _PORTS] == p[_KEY + _PORTS] and p[at + _META] & _IDENTITY == identity:
                if int(self._same(at, _KEY)):
                    return slot
            slot = p[at + _META] & _NEXT
        return 0

    def _claim(self, place, meta):
        # A slot for the key, plus one; 0 where the flow is refused.
        local = meta >> _LOCAL_SHIFT & 0xFF
        slot = self._get(_LIVE)
        full = slot == self._get(_SLOTS)
        if local > self._get(_MAX_LOCALS):
            # The key says nothing of an address without a place: its low half-word tells it apart.
            self._refuse(place, self._get_half(2 * (_POOL + 4 * local) - 1))
            return 0
        if full and self._get(_POLICY) == DROP_NEW:
            self._refuse(place, 0)
            return 0
        if full:
            slot = self._get(_OLDEST)
            self._set(_OLDEST, (slot + 1) % self._get(_SLOTS))
            self._unlink(slot)
            self._retire(slot)
            self._bump(_EVICTED)
        else:
            self._set(_LIVE, slot + 1)
            self._set(_HIGH_WATER, max(slot + 1, self._get(_HIGH_WATER)))
        self._set(_LOCALS, max(local, self._get(_LOCALS)))
        head = 2 * _HEADS + (place >> 18)
        self._fill(slot, meta | self._get_half(head))
        self._set_half(head, slot + 1)
        return slot + 1

    @micropython.viper
    def _fill(self, slot: int, meta: int):
        # Writes the key into the slot, with nothing counted yet; the generation stays.
        p = ptr32(self._buf)
        at = p[_BASE] + _WORDS * slot
        i = 0
        while i < _FIRST:
            p[at + i] = p[_KEY + i] if i < _BYTES_IN else 0
            i += 1
        p[at + _FIRST] = p[at + _FIRST] >> 24 << 24 | p[_NOW]
        p[at + _META] = meta

    def _refuse(self, place, salt):
        # Counts a sighting that found no room, and the flow unless this cycle refused it before: a
        # small set remembers 16 bits of each refused flow's hash.
        self._bump(_REFUSED_HITS)
        tag = (place ^ salt) & 0xFFFF or 1
        for i in range(128):
            at = 2 * _REFUSED + (place + i & 127)
            known = self._get_half(at)
            if known == tag:
                return
            if not known:
                self._set_half(at, tag)
                break
        self._bump(_REFUSED_FLOWS)

    def _unlink(self, slot):
        # Takes the slot out of its bucket's chain.
        base = self._get(_BASE)
        meta = self._get(base + _WORDS * slot + _META)
        head = 2 * _HEADS + (self._hash(base + _WORDS * slot, meta & _IDENTITY) >> 18)
        place = self._get_half(head)
        if place == slot + 1:
            self._set_half(head, meta & _NEXT)
            return
        while place != slot + 1:
            at = base + _WORDS * (place - 1) + _META
            before = self._get(at)
            place = before & _NEXT
        self._set(at, before - place + (meta & _NEXT))

    @micropython.viper
    def _retire(self, slot: int):
        # A new generation for the slot: the tokens given out for it are stale from now on.
        p = ptr32(self._buf)
        b = ptr8(int(p) + 4 * (p[_BASE] + _WORDS * slot))
        generation = (b[39] << 8 | b[35]) + 1
        b[35] = generation
        b[39] = generation >> 8

    @micropython.viper
    def _sight(self, place: int) -> int:
        # Marks the slot (plus one) as seen now, with a hit unless it is UDP's; returns its token.
        p = ptr32(self._buf)
        at = p[_BASE] + _WORDS * (place - 1)
        high = p[at + _LAST] >> 24 & 0xFF
        p[at + _LAST] = p[_NOW] | high << 24
        token = _TOKEN | high << 16 | (p[at + _FIRST] >> 24 & 0xFF) << 8 | place - 1
        if p[at + _META] >> _KIND_SHIFT == _KIND_UDP:
            return token | _TOKEN_UDP
        p[at + _HITS] += 1
        if p[at + _HITS] == 0:
            p[at + _HITS] = -1
        return token

    # The two below are the hot path, written out twice: a call would cost more than the counting.

    @micropython.viper
    def count_in(self, token: int, size: int) -> int:
        """Add `size` bytes received. Returns 1, or 0 for a stale token: `open` the flow again.

        Takes no heap and does not raise. Counters stop at 2**32 - 1.
        """
        p = ptr32(self._buf)
        slot = token & 0xFF
        at = p[_BASE] + _WORDS * slot
        high = p[at + _LAST] >> 24 & 0xFF
        if token < _TOKEN or slot >= p[_LIVE] or high != token >> 16 & 0xFF:
            return 0
        if p[at + _FIRST] >> 24 & 0xFF != token >> 8 & 0xFF:
            return 0
        p[at + _LAST] = p[_NOW] | high << 24
        before = uint(p[at + _BYTES_IN])
        p[at + _BYTES_IN] += size
        if uint(p[at + _BYTES_IN]) < before:
            p[at + _BYTES_IN] = -1
        if token & _TOKEN_UDP:
            p[at + _HITS] += 1
            if p[at + _HITS] == 0:
                p[at + _HITS] = -1
        return 1

    @micropython.viper
    def count_out(self, token: int, size: int) -> int:
        """Add `size` bytes sent; otherwise as `count_in`."""
        p = ptr32(self._buf)
        slot = token & 0xFF
        at = p[_BASE] + _WORDS * slot
        high = p[at + _LAST] >> 24 & 0xFF
        if token < _TOKEN or slot >= p[_LIVE] or high != token >> 16 & 0xFF:
            return 0
        if p[at + _FIRST] >> 24 & 0xFF != token >> 8 & 0xFF:
            return 0
        p[at + _LAST] = p[_NOW] | high << 24
        before = uint(p[at + _BYTES_OUT])
        p[at + _BYTES_OUT] += size
        if uint(p[at + _BYTES_OUT]) < before:
            p[at + _BYTES_OUT] = -1
        if token & _TOKEN_UDP:
            p[at + _HITS] += 1
            if p[at + _HITS] == 0:
                p[at + _HITS] = -1
        return 1

    def set_app(self, token, app):
        """Set the flow's application code, known after its first payload; no effect if stale."""
        if self.count_in(token & ~_TOKEN_UDP, 0):
            at = self._get(_BASE) + _WORDS * (token & 0xFF) + _META
            self._set(at, self._get(at) & ~(31 << _APP_SHIFT) | app << _APP_SHIFT)

    def snapshot_size(self):
        """Bytes that `drain` writes for what is in the table now."""
        return _HEADER + _ADDRESS * self._get(_LOCALS) + _RECORD * self.live

    def drain(self, into):
        """Write a snapshot of all flows into `into`, empty the table and start a new cycle.

        One step: what is counted afterwards belongs to the new cycle. Returns the number of
        flows. Errors: ValueError, and the table as it was, where `into` is shorter than
        `snapshot_size()`.
        """
        if len(into) < self.snapshot_size():
            raise ValueError("buffer too small")
        count = self.live
        local_bytes = _ADDRESS * self._get(_LOCALS)
        record_bytes = _RECORD * count
        table = memoryview(self._buf)
        struct.pack_into("<HBB", into, 0, count, self._get(_LOCALS), _VERSION)
        into[_HEADER : _HEADER + local_bytes] = table[4 * _POOL : 4 * _POOL + local_bytes]
        start = 4 * self._get(_BASE)
        end = _HEADER + local_bytes + record_bytes
        into[_HEADER + local_bytes : end] = table[start : start + record_bytes]
        self.clear()
        return count

    @micropython.viper
    def clear(self):
        """Empty the table and start a new cycle; what was in it is forgotten."""
        p = ptr32(self._buf)
        slot = 0
        while slot < p[_LIVE]:
            self._retire(slot)
            slot += 1
        i = _HEADS
        while i < _POOL:  # the chains, and the set of refused flows
            p[i] = 0
            i += 1
        p[_NOW] = 0
        p[_LIVE] = 0
        p[_OLDEST] = 0
        p[_LOCALS] = 0


def flows(snapshot):
    """The number of flows in a snapshot that `FlowTable.drain` wrote."""
    return snapshot[0] | snapshot[1] << 8


@micropython.viper
def sort(snapshot):
    """Order a snapshot in place: flows that share what a report can say once become neighbours.

    By protocol, direction, application and local address, then by remote address. The snapshot
    must start at an address that is a multiple of 4 (Cortex-M0+ reads words nowhere else).
    """
    head = ptr8(snapshot)
    count = head[0] | head[1] << 8
    p = ptr32(int(head) + _HEADER + _ADDRESS * head[2])
    i = 1
    while i < count:
        at = _WORDS * i
        while at > 0:
            # Compare with the record before; exchange if it belongs behind.
            a = at - _WORDS
            first = p[a + _META] >> _LOCAL_SHIFT
            second = p[at + _META] >> _LOCAL_SHIFT
            word = 0
            while first == second and word < _PORTS:
                first = p[a + word]
                second = p[at + word]
                word += 1
            if first <= second:
                break
            word = 0
            while word < _WORDS:
                first = p[a + word]
                p[a + word] = p[at + word]
                p[at + word] = first
                word += 1
            at = a
        i += 1


def _at(snapshot, index):
    return _HEADER + _ADDRESS * snapshot[2] + _RECORD * index


def remote(snapshot, index):
    """The 16 bytes of a flow's remote address as they are kept: to compare, without unpacking."""
    at = _at(snapshot, index)
    return snapshot[at : at + _ADDRESS]


def unpack(snapshot, index):
    """Flow `index` of a snapshot, as a tuple.

    (protocol, direction, app, local address, local port, remote address, remote port, bytes in,
    bytes out, hits, first seen, last seen): addresses as 4 or 16 bytes or None, seen in seconds
    since the cycle began.
    """
    at = _at(snapshot, index)
    ports, received, sent, hits, first, last, meta = struct.unpack_from("<7I", snapshot, at + 16)
    local = meta >> _LOCAL_SHIFT & 0xFF
    return (
        _KINDS[meta >> _KIND_SHIFT],
        meta >> _DIRECTION_SHIFT & 1,
        meta >> _APP_SHIFT & 31,
        _address(snapshot, _HEADER + _ADDRESS * (local - 1)) if local else None,
        ports >> 16,
        _address(snapshot, at),
        ports & 0xFFFF,
        received,
        sent,
        hits,
        first & _SECONDS,
        last & _SECONDS,
    )


def _address(snapshot, at):
    address = bytes(snapshot[at : at + _ADDRESS])
    if address[:12] == _MAPPED:
        return address[12:]
    return address if any(address) else None
