"""On MicroPython: a HubClient that does what JSON lines on stdin say, and tells what happens.

Argument: how many times as fast the device's time runs, so that back-offs do not take long. The
first line in has connection_string, ca, and the client's options; also "lag" (a 5 ms ticker
measures how late the loop gets), "methods" and "messages" (it takes them), "roots" (the path for
a new root). Each line out is an object with "event".
"""

import sys

import warp

if int(sys.argv[1]) > 1:
    warp.faster(int(sys.argv[1]))

import asyncio  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402

import iothub  # noqa: E402


def tell(event, **fields):
    fields["event"] = event
    print(json.dumps(fields))


class Ticker:
    def __init__(self):
        self.late = []

    async def run(self):
        due = time.ticks_us()
        while True:
            due = time.ticks_add(due, 5000)
            wait = time.ticks_diff(due, time.ticks_us())
            await asyncio.sleep_ms(max(0, wait // 1000))
            late = time.ticks_diff(time.ticks_us(), due)
            self.late.append(late)
            if late > 5000:
                due = time.ticks_us()

    def take(self):
        late = sorted(self.late)
        self.late = []
        return {"max_ms": late[-1] / 1000, "p99_ms": late[len(late) * 99 // 100] / 1000}


def small_socket(*args):
    """With a small buffer, as a board has."""
    import socket

    sock = socket.socket(*args)
    sock.setsockopt(1, 7, 8192)  # SOL_SOCKET, SO_SNDBUF on Linux
    return sock


async def attempt(name, number, coroutine):
    try:
        tell(name, number=number, result=await coroutine)
    except iothub.HubError as e:
        tell("error", number=number, code=e.code, text=str(e))


async def stream(client, size, properties):
    async def writer(write):
        left = size
        while left:
            n = min(left, 100)
            await write(b"s" * n)
            left -= n
            client.written = size - left

    await client.send_stream(size, writer, properties)


async def load(client, senders, count, size):
    async def sender():
        for _ in range(count):
            await client.send(body)

    body = b"x" * size
    begin = time.ticks_us()
    await asyncio.gather(*[sender() for _ in range(senders)])
    return senders * count * 1000000 / time.ticks_diff(time.ticks_us(), begin)


async def obey(client, ticker, order):
    name = order.pop("do")
    number = order.get("number", 0)
    if name == "send":
        body = order["body"].encode() * order.get("times", 1)
        sending = client.send(body, order.get("properties"), order.get("timeout", 60))
        asyncio.create_task(attempt("sent", number, sending))
    elif name == "stream":
        sending = stream(client, order["size"], order.get("properties"))
        asyncio.create_task(attempt("sent", number, sending))
    elif name == "load":
        work = load(client, order["senders"], order["count"], order["size"])
        asyncio.create_task(attempt("loaded", number, work))
    elif name == "report":
        asyncio.create_task(attempt("reported", number, client.report(order["patch"])))
    elif name == "wait":
        await attempt("waited", number, client.wait_connected(order["timeout"]))
    elif name == "lag":
        tell("lag", **ticker.take())
    elif name == "stats":
        gc.collect()
        tell("stats", heap=gc.mem_alloc(), written=client.written, **client.stats)
    elif name == "start":
        client.start()
    elif name == "stop":
        await client.stop()
        tell("stopped")


async def slow(payload):
    await asyncio.sleep(payload["seconds"])
    return 202, {"slept": payload["seconds"]}


def fail(payload):
    return payload["missing"]


def on_message(body, properties):
    tell("message", body=str(body, "utf-8"), properties=properties)


async def main():
    orders = asyncio.StreamReader(sys.stdin)
    config = json.loads(await orders.readline())
    text = config.pop("connection_string")
    if "provisioning" in config:
        from iothub.dps import Provisioning

        credentials = None
        config["provisioning"] = Provisioning(**config["provisioning"])
    elif "certificate" in config:
        credentials = iothub.Credentials.parse(text, config.pop("certificate"))
    else:
        credentials = iothub.Credentials.parse(text)
    wants = {name: config.pop(name, False) for name in ("lag", "methods", "messages", "roots")}
    ticker = Ticker()
    if wants["lag"]:
        asyncio.create_task(ticker.run())
    client = iothub.HubClient(credentials, socket=small_socket, **config)

    def on_connection(up, reason):
        tell("connection", up=up, code=reason and reason.code)

    client.written = 0  # of the last stream
    client.on_connection(on_connection)
    client.on_desired(
        lambda desired, version, full: tell("desired", desired=desired, version=version, full=full)
    )
    if wants["roots"]:
        from iothub.roots import Roots

        Roots(client, wants["roots"])
    if wants["methods"]:
        client.on_method("echo", lambda payload: (200, {"got": payload}))
        client.on_method("slow", slow)
        client.on_method("fail", fail)
        client.on_method("big", lambda payload: (200, "x" * 140000))
    if wants["messages"]:
        client.on_message(on_message)
    client.start()
    while True:
        line = await orders.readline()
        if not line:
            break
        await obey(client, ticker, json.loads(line))
    await client.stop()


asyncio.run(main())
