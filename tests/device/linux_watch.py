"""What the agent sees of other programs on Linux, told line by line on demand.

Commands on stdin: `look` looks at all sockets now, `flows` drains the table, `processes` tells
what came to be since the last time,
`tcp PORT` and `udp PORT` exchange some bytes with a server on loopback through the tap, `native
PORT` past it, as the agent's own connection does, and `kept PORT` likewise, with a look meanwhile.
Each is answered by one line of JSON.
Arguments: `polling` to do without the kernel's process events, and every how many ms.
"""

import asyncio
import json
import sys

import flowtable
from nettap import sockets

table = flowtable.FlowTable(policy=flowtable.DROP_OLDEST)
sockets.install(table)

import socket  # noqa: E402

from vedette.events import address_text  # noqa: E402
from vedette.ports import process_events, process_watch  # noqa: E402
from vedette.ports.traffic import Traffic  # noqa: E402

_NAMES = {flowtable.TCP: "TCP", flowtable.UDP: "UDP", flowtable.ICMP: "ICMP"}


class Agent:
    class scheduler:
        errors = 0


def refuse():
    raise OSError(1)


def flows():
    view = bytearray(table.snapshot_size())
    found = []
    table.drain(view)
    for flow in flowtable.unpack(view):
        ends = [flow[3] and address_text(flow[3]), flow[4], address_text(flow[5]), flow[6]]
        found.append(
            [_NAMES[flow[0]], "Out" if flow[1] else "In"]
            + ends
            + list(flow[7:10])
            + [sockets.app_name(flow[2])]
        )
    return {"flows": found, "errors": Agent.scheduler.errors + sockets.errors}


async def exchange(kind, port, look):
    udp = kind == "udp"
    make = sockets.own_socket if kind in ("native", "kept") else socket.socket
    sock = make(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    address = socket.getaddrinfo("127.0.0.1", port)[0][-1]
    try:
        sock.connect(address)
        sock.send(b"question")
        sock.recv(100)
        if kind == "kept":
            await look()
    except OSError as error:
        return {"refused": error.errno}
    finally:
        sock.close()
    return {"done": True}


async def main():
    seen = []
    polling_ms = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    if "polling" in sys.argv:
        process_events.listen = refuse
    watch = process_watch.start(lambda *told: seen.append(told[1:]), polling_ms)
    asyncio.create_task(watch.run())
    traffic = Traffic(Agent, table)
    await asyncio.sleep_ms(200)
    sees = {"events": type(watch).__name__ == "_Events", "packets": bool(traffic._packets)}
    print(json.dumps(dict(sees, gone=bool(traffic._connections._gone))))
    commands = asyncio.StreamReader(sys.stdin)
    while True:
        words = (await commands.readline()).decode().split()
        if not words:
            break
        if words[0] == "flows":
            answer = flows()
        elif words[0] == "look":
            answer = await traffic.look()
        elif words[0] == "processes":
            watch.settle()
            answer, seen[:] = list(seen), []
        else:
            answer = await exchange(words[0], int(words[1]), traffic.look)
        print(json.dumps(answer))
    traffic.stop()


asyncio.run(main())
