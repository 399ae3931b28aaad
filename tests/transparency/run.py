"""Runs an application on MicroPython with or without the tap: run.py tap|plain APP ARGUMENT...

What the application prints is its transcript. With the tap, a last line holds the flows and the
number of errors inside the tap, as JSON.
"""

import json
import sys

import flowtable


def flows(table):
    snapshot = bytearray(table.snapshot_size())
    table.drain(snapshot)
    rows = list(flowtable.unpack(snapshot))
    return [[list(field) if isinstance(field, bytes) else field for field in row] for row in rows]


def main(way, name, *arguments):
    sys.path.insert(0, __file__.rsplit("/", 1)[0] + "/apps")
    if way == "tap":
        from nettap import sockets

        table = flowtable.FlowTable()
        sockets.install(table)
    __import__(name).main(*arguments)
    if way == "tap":
        print("\x02" + json.dumps({"flows": flows(table), "errors": sockets.errors}))


main(*sys.argv[1:])
