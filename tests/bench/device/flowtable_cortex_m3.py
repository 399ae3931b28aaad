"""The flow table on an emulated Cortex-M3, sent over the REPL by cortex_m3.py.

Prints a JSON object: bytes of heap of a table, and instructions and heap of a call. The emulator
counts an instruction as a nanosecond, and SysTick runs at 25 MHz.
"""

import gc
import json

import flowtable
import machine
import micropython

_SYSTICK = 0xE000E010  # control, reload, value: ARMv7-M Architecture Reference Manual, B3.3
_PER_TICK = 40
_CALLS = 1000


class Os:
    """Stands in for `os`, which this firmware has without `urandom`."""

    @staticmethod
    def urandom(count):
        return bytes([(i * 73 + 41) & 255 for i in range(count)])


def nothing(token, size):
    pass


def instructions(function, token):
    before = machine.mem32[_SYSTICK + 8]
    for _ in range(_CALLS):
        function(token, 64)
    return (before - machine.mem32[_SYSTICK + 8] & 0xFFFFFF) * _PER_TICK // _CALLS


flowtable.os = Os
machine.mem32[_SYSTICK + 4] = 0xFFFFFF
machine.mem32[_SYSTICK] = 5
gc.collect()
before = gc.mem_alloc()
table = flowtable.FlowTable()
gc.collect()
size = gc.mem_alloc() - before
token = table.open(6, 1, b"\x0a\0\0\x07", 50122, b"\x08\x08\x08\x08", 443)
empty = instructions(nothing, token)
hit = instructions(table.count_out, token)
big = 1 << 31
before = gc.mem_alloc()
micropython.heap_lock()  # an allocation raises MemoryError from here on
table.count_out(token, big)
micropython.heap_unlock()
heap = gc.mem_alloc() - before
snapshot = bytearray(table.snapshot_size())
table.drain(snapshot)
(flow,) = flowtable.unpack(snapshot)
assert flow[5:9] == (b"\x08\x08\x08\x08", 443, 0, big + 64 * _CALLS), flow
print(json.dumps({"table": size, "empty": empty, "hit": hit, "heap": heap}))
