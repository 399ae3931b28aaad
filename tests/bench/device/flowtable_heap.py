"""Heap of the flow table: the whole of one with 256 slots, and of one hit."""

import gc
import json

import flowtable
import micropython


def whole():
    gc.collect()
    before = gc.mem_alloc()
    table = flowtable.FlowTable(256)
    gc.collect()
    return gc.mem_alloc() - before, table


def hits(table):
    token = table.open(17, 1, b"\xff" * 16, 65535, b"\xff" * 16, 65535)
    big = 1 << 31
    samples = []
    for _ in range(5):
        before = gc.mem_alloc()
        micropython.heap_lock()  # an allocation raises MemoryError from here on
        table.count_in(token, big)
        table.count_out(token, big)
        micropython.heap_unlock()
        samples.append(gc.mem_alloc() - before)
    return samples


def main():
    whole()  # what the first use compiles or interns is not the table's
    size, table = whole()
    print(json.dumps({"table": [size], "heap": hits(table)}))


main()
