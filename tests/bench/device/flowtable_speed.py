"""Ratios of the flow table: both sides of each in turn, in one process."""

import json
import os
import time

import flowtable

_ROUNDS = 15
_LOCAL = b"\x0a\0\0\x07"


def nothing():
    pass


def loop_empty(count):
    function = nothing
    began = time.ticks_us()
    for _ in range(count):
        function()
    return time.ticks_diff(time.ticks_us(), began)


def loop_hit(table, token, count):
    function = table.count_out
    began = time.ticks_us()
    for _ in range(count):
        function(token, 64)
    return time.ticks_diff(time.ticks_us(), began)


def loop_lookup(table, keys, count):
    find, hit = table.open, table.count_out
    began = time.ticks_us()
    for _ in range(count // len(keys)):
        for remote, lport, rport in keys:
            hit(find(6, 1, _LOCAL, lport, remote, rport), 64)
    return time.ticks_diff(time.ticks_us(), began)


def filled(keys):
    table = flowtable.FlowTable()
    for remote, lport, rport in keys:
        table.open(6, 1, _LOCAL, lport, remote, rport)
    return table


def random_keys(count):
    return [(os.urandom(4), 49152 + i, 443) for i in range(count)]


def crafted_keys(count):
    """Flows that a peer would choose: they differ in few bits, at the top of each part.

    Against an unseeded multiplicative or additive hash these fall into a few buckets.
    """
    keys = []
    for i in range(count):
        remote = bytes([(i & 15) << 4, 0, 0, 0])
        keys.append((remote, (i >> 4 & 3) << 14, (i >> 6 & 3) << 14))
    return keys


def main():
    ratios = {
        "flowtable.hit_ratio": [],
        "flowtable.lookup_growth": [],
        "flowtable.lookup_crafted": [],
    }
    table = flowtable.FlowTable()
    token = table.open(6, 1, _LOCAL, 50122, b"\x08\x08\x08\x08", 443)
    sets = [random_keys(16), random_keys(256), crafted_keys(256)]
    tables = [filled(keys) for keys in sets]
    for _ in range(_ROUNDS):
        empty, hit = loop_empty(100000), loop_hit(table, token, 100000)
        ratios["flowtable.hit_ratio"].append(hit / empty)
        few, many, crafted = [loop_lookup(tables[i], sets[i], 25600) for i in range(3)]
        ratios["flowtable.lookup_growth"].append(many / few)
        ratios["flowtable.lookup_crafted"].append(crafted / many)
        # A new seed each round: no lucky one decides.
        tables[2] = filled(sets[2])
    print(json.dumps(ratios))


main()
