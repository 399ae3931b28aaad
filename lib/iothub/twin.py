"""The device twin: desired properties come, reported properties go. Loaded when one does.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#use-device-twins
"""

import asyncio
import io
import json

from micropython import const

from .client import DESIRED
from .decoding import decode
from .errors import HubError, cold
from .mqtt import PUBLISH, due, wait_until

_MAX_REPORTED = const(32768)  # bytes: the hub's limit
_PIECE = const(96)  # bytes, about
_ANSWER_S = const(30)
_RETRY_S = const(10)  # until the twin is asked for again


async def greet(client):
    """Subscribes to all that the client listens to, and asks for the desired properties."""
    session = client.session
    try:
        filters = [(client.topic(prefix) + "#", qos) for prefix, qos, _ in client.routes]
        client.version = 0
        await cold("connecting", "subscribe", session, filters)
        while client.callback(DESIRED):
            try:
                desired = (await fetch(client))["desired"]
                # A change that came right behind the answer has been handed on before it.
                if desired.get("$version", 0) >= client.version:
                    return _hand_on(client, desired, True)
            except HubError as e:
                if e.code not in ("throttled", "timeout", "server"):
                    client.last_error = e
                    return
            await asyncio.sleep(_RETRY_S)
    except Exception as e:  # half a greeting is none: the connection is made again
        session.fault = e


class _Pieces(io.IOBase):
    """Takes JSON in pieces, as a heap in use has no long ones left."""

    def __init__(self):
        self.size = 0
        self.pieces = [bytearray()]

    def write(self, data):
        self.size += len(data)
        if len(self.pieces[-1]) > _PIECE:
            self.pieces.append(bytearray())
        self.pieces[-1].extend(data)
        return len(data)

    async def put(self, write):
        for piece in self.pieces:
            await write(piece)


async def report(client, patch):
    """See HubClient.report."""
    body = _Pieces()
    json.dump(patch, body)
    if body.size > _MAX_REPORTED:
        raise HubError("too-large", body.size)
    return await _request(client, "PATCH/properties/reported/", body.size, body.put)


async def fetch(client):
    """See HubClient.twin."""
    return await _request(client, "GET/")


async def _request(client, what, *body):
    if not client.connected:
        raise HubError("closed")
    session = client.session
    limit = due(_ANSWER_S)
    await wait_until(session.up, limit)
    number = session.number()
    topic = "$iothub/twin/%s?$rid=%d" % (what, number)
    answer = await session.ask(number, limit, PUBLISH, (topic,), *body)
    if answer is None:
        raise HubError("closed")
    return answer


def hear(client, topic, payload):
    """Takes a message of the twin's topics. Any exception when it is malformed."""
    path, _, query = topic.partition("/?")
    status = path[path.rfind("/") + 1 :]
    if status == "desired":
        if payload is not None:
            _hand_on(client, json.loads(payload), False)
        return
    query = decode(query)
    status = int(status)
    if status == 204:
        answer = int(query["$version"])
    elif status == 200 and payload is not None:
        answer = json.loads(payload)
        if not isinstance(answer["desired"], dict):
            raise ValueError
    elif status in (200, 413):
        answer = HubError("too-large", "the twin")
    elif status == 429:
        answer = HubError("throttled")
    else:
        answer = HubError("server" if status >= 500 else "rejected", status)
    client.session.give(int(query["$rid"]), answer)


def _hand_on(client, desired, full):
    version = client.version = desired.pop("$version", 0)
    client.tell(DESIRED, desired, version, full)
