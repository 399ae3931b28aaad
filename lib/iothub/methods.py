"""Direct methods: the hub calls, the device answers. Loaded by HubClient.on_method.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#respond-to-a-direct-method
"""

import asyncio
import json

from micropython import const

from .decoding import decode, unquote
from .errors import HubError
from .mqtt import PUBLISH

_REQUESTS = "$iothub/methods/POST/"
_ANSWER = "$iothub/methods/res/%d/?$rid=%s"
_WAITING = const(4)  # calls that run or wait; the hub is told 503 for more
_RUN_S = const(300)  # for a handler: the hub does not wait longer
_MAX_ANSWER = const(131072)  # bytes: the hub's limit


class Methods:
    def __init__(self, client):
        self._client = client
        self._handlers = {}
        self._calls = []
        self._task = None
        client.route(_REQUESTS, 0, self._on_request)

    def add(self, name, callback):
        if name in self._handlers:
            raise ValueError("a callback for %s is there already" % name)
        self._handlers[name] = callback

    def _on_request(self, topic, payload, _packet_id):
        name, _, query = topic[len(_REQUESTS) :].partition("/?")
        rid = decode(query)["$rid"]
        handler = self._handlers.get(unquote(name))
        refusal = None
        if handler is None:
            refusal = 404, "no such method"
        elif payload is None:
            refusal = 413, "the payload is too large"
        elif len(self._calls) >= _WAITING:
            refusal = 503, "too many calls at once"
        else:
            try:
                payload = json.loads(payload) if len(payload) else None
            except ValueError:
                refusal = 400, "the payload is not JSON"
        if refusal:
            asyncio.create_task(self._answer(rid, refusal[0], {"error": refusal[1]}))
            return
        self._calls.append((rid, handler, payload))
        if not self._task or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self):
        while self._calls:
            try:
                await self._serve(*self._calls[0])
            finally:
                self._calls.pop(0)

    async def _serve(self, rid, callback, payload):
        status, answer = 500, {"error": "the method failed"}
        try:
            outcome = callback(payload)
            if hasattr(outcome, "send"):
                outcome = await asyncio.wait_for(outcome, _RUN_S)
            status, answer = int(outcome[0]), outcome[1]
        except asyncio.TimeoutError:
            status, answer = 504, {"error": "the method took too long"}
        except Exception as e:
            self._client.guard(_raise, e)
        await self._answer(rid, status, answer)

    async def _answer(self, rid, status, answer):
        body = json.dumps(answer).encode()
        if len(body) > _MAX_ANSWER:
            status, body = 500, b'{"error":"the answer is too large"}'
        try:
            await self._client.session.write(PUBLISH, (_ANSWER % (status, rid),), len(body), body)
        except HubError:
            pass  # the hub has told its caller that the device is gone


def _raise(error):
    raise error
