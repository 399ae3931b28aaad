"""Device side of test_messages.py: renders flows through the agent's own code, in both forms.

micropython render_flows.py SEED COUNT MAX_SIZE   Prints three JSON lines: the flows that went in,
then the messages in objects and in columns form, as lists of texts. SEED 0 makes extreme values,
an odd one the reference set, an even one a random set.
"""

import asyncio
import json
import os
import random
import sys

sys.path.append(os.getenv("ROOT") + "/tests/bench/device")

import reference_flows
from iothub import clock
from nettap import sockets
from vedette import tap
from vedette.collectors import network_activity
from vedette.events import address_text
from vedette.outbox import Outbox
from vedette.scheduler import Scheduler
from vedette.sender import Sender
from vedette.settings import Settings

AGENT = "8b0e6f0e-6c1f-4a53-9f5e-1d2c3b4a5968"
_HOST_MAX = "h" * 64
_ODD_NAME = 'odd"\\\n\u20ac'


class Client:
    """Stands in for the hub client: keeps what a message's writer writes."""

    connected = True

    def __init__(self):
        self.messages = []

    async def send_stream(self, length, writer, properties):
        body = bytearray()

        async def write(chunk):
            body.extend(chunk)

        await writer(write)
        assert len(body) == length, (len(body), length)
        self.messages.append(body.decode())


class Agent:
    """Stands in for the agent around one collector."""

    def __init__(self, values):
        self.settings = Settings({})
        self.settings.apply(values)
        self.objects = values["Message_Format"] == "objects"
        self.outbox = Outbox(60000)
        self.scheduler = Scheduler(lambda: 0)
        self.since = {"NetworkActivity": clock.uptime() - reference_flows.INTERVAL}
        self.counters = {"collections_deferred": 0, "events_collected": 0}


def _random_flow(number):
    def address():
        size = random.choice((4, 16, 16))
        made = bytes([random.choice((0, 0, 1, 255, random.getrandbits(8))) for _ in range(size)])
        return made if any(made) and random.randrange(20) else None

    protocol = random.choice((6, 17, 1))
    known = random.choice((0, 1, 1, 1))
    return (
        protocol,
        random.getrandbits(1),
        random.choice((None, "HTTP", "HTTPS", "MQTT", "DNS")),
        reference_flows.flows(number + 1, 1)[0][3] if known else None,
        0 if protocol == 1 else random.choice((0, 1024 + number)),
        address(),
        0 if protocol == 1 else 1024 + number,
        random.choice((0, 1, (1 << 30) - 1)),
        random.getrandbits(20),
        random.choice((1, 5)),
        random.randrange(100),
        100 + random.randrange(100),
        # As many names as the tap remembers.
        random.choice((None, "host-%d.example" % number, _ODD_NAME)) if number < 32 else None,
    )


def _extreme_flow(number):
    # Every text as long as it gets, nothing shared between neighbours.
    most = (1 << 30) - 1
    address = bytes([0xFE, 0xDC, 0xBA, 0x98] * 3 + [0xFE, 0xDC, 0xBA, number])
    app = "HTTPS"
    for code in range(32):
        name = sockets.app_name(code)
        app = name if name and len(name) > len(app) else app
    local = address[:15] + b"\x99"
    return 6, 1, app, local, 60000, address, 60000 + number, most, most, 1, 0, 0, _HOST_MAX


def _fill(table, made):
    codes = {sockets.app_name(code): code for code in range(19)}
    names = {}
    for flow in made:
        protocol, direction, app, laddr, lport, raddr, rport = flow[:7]
        table.tick(flow[10])
        token = table.open(protocol, direction, laddr, lport, raddr, rport, codes.get(app, 0))
        table.count_in(token, flow[7])
        table.tick(flow[11])
        table.count_out(token, flow[8])
        if flow[12]:
            names[raddr] = flow[12]
    return names


async def _render(made, values):
    agent = Agent(values)
    collector = network_activity.Collector(agent)
    names = _fill(tap.table, made)
    sockets.host_name = names.get
    assert collector.hand_over()
    client = Client()
    sender = Sender(client, agent.outbox, agent.settings, AGENT)
    await sender.flush()
    return client.messages


def main(seed, count, size):
    random.seed(seed)
    if seed == 0:
        made = [_extreme_flow(number) for number in range(count)]
    elif seed % 2:
        made = reference_flows.flows(seed, count)
    else:
        drawn = [_random_flow(number) for number in range(count)]
        made = list({(flow[0],) + flow[3:7]: flow for flow in drawn}.values())
    shown = []
    for flow in made:
        flow = list(flow)
        flow[3] = flow[3] and address_text(flow[3])
        flow[5] = flow[5] and address_text(flow[5])
        shown.append(flow)
    print(json.dumps(shown))
    for form in ("objects", "columns"):
        values = {"Message_Format": form, "Message_MaxSize": size}
        print(json.dumps(asyncio.run(_render(made, values))))


main(*[int(argument) for argument in sys.argv[1:]])
