"""A call of a direct method, and its answer. Loaded when one comes.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#respond-to-a-direct-method
"""

import asyncio
import json

from micropython import const

from .decoding import decode, unquote
from .errors import HubError
from .mqtt import PUBLISH

_ANSWER = "$iothub/methods/res/%d/?$rid=%s"
_WAITING = const(4)  # calls that run or wait; the hub is told 503 for more
_RUN_S = const(300)  # for a handler: the hub does not wait longer
_MAX_ANSWER = const(131072)  # bytes: the hub's limit


def hear(client, topic, payload):
    """Takes a call, its payload None when that was too large. Any exception when malformed."""
    path, _, query = topic.partition("/?")
    rid = decode(query)["$rid"]
    handler = client.callback(unquote(path[path.rfind("/") + 1 :]))
    refusal = None
    if handler is None:
        refusal = 404, "no such method"
    elif payload is None:
        refusal = 413, "the payload is too large"
    elif len(client.calls) >= _WAITING:
        refusal = 503, "too many calls at once"
    else:
        try:
            payload = json.loads(payload) if len(payload) else None
        except ValueError:
            refusal = 400, "the payload is not JSON"
    if refusal:
        body = json.dumps({"error": refusal[1]}).encode()
        asyncio.create_task(_answer(client, rid, refusal[0], body))
        return
    client.calls.append((rid, handler, payload))
    if not client.serving:
        client.serving = asyncio.create_task(_run(client))


async def _run(client):
    try:
        while client.calls:
            try:
                await _serve(client, *client.calls[0])
            finally:
                client.calls.pop(0)
    finally:
        client.serving = None  # it keeps this module loaded


async def _serve(client, rid, callback, payload):
    status, body = 500, b'{"error": "the method failed"}'
    try:
        outcome = callback(payload)
        if hasattr(outcome, "send"):
            outcome = await asyncio.wait_for(outcome, _RUN_S)
        status, body = int(outcome[0]), json.dumps(outcome[1]).encode()
    except asyncio.TimeoutError:
        status, body = 504, b'{"error": "the method took too long"}'
    except Exception as e:
        client.guard(_raise, e)
    await _answer(client, rid, status, body)


async def _answer(client, rid, status, body):
    if len(body) > _MAX_ANSWER:
        status, body = 500, b'{"error":"the answer is too large"}'
    try:
        await client.session.write(PUBLISH, (_ANSWER % (status, rid),), len(body), body)
    except HubError:
        pass  # the hub has told its caller that the device is gone


def _raise(error):
    raise error
