"""Direct methods: the hub calls, the device answers. Loaded by HubClient.on_method.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#respond-to-a-direct-method
"""

import asyncio
import json

from micropython import const

from . import bag
from .errors import HubError

_REQUESTS = "$iothub/methods/POST/"
_ANSWER = "$iothub/methods/res/%d/?$rid=%s"
_WAITING = const(4)  # calls that wait for one that runs; the hub is told 503 for more
_RUN_S = const(300)  # for a handler: the hub does not wait longer
_MAX_ANSWER = const(131072)  # bytes: the hub's limit


class Methods:
    def __init__(self, client, mqtt):
        self._guard = client.guard
        self._mqtt = mqtt
        self._handlers = {}
        self._calls = []
        self._running = False
        client.route(_REQUESTS, 0, self._on_request)

    def add(self, name, handler):
        if name in self._handlers:
            raise ValueError("a handler for %s is there already" % name)
        self._handlers[name] = handler

    def _on_request(self, topic, payload, _packet_id):
        name, _, query = topic[len(_REQUESTS) :].partition("/?")
        rid = bag.decode(query)["$rid"]
        handler = self._handlers.get(bag.unquote(name))
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
        if not self._running:
            self._running = True
            asyncio.create_task(self._run())

    async def _run(self):
        while self._calls:
            rid, handler, payload = self._calls[0]
            outcome = self._guard(handler, payload)
            if hasattr(outcome, "send"):
                outcome = await self._finish(outcome)
            if not isinstance(outcome, tuple):
                outcome = 500, {"error": "the method failed"}
            await self._answer(rid, *outcome)
            self._calls.pop(0)
        self._running = False

    async def _finish(self, coroutine):
        try:
            return await asyncio.wait_for(coroutine, _RUN_S)
        except asyncio.TimeoutError:
            return 504, {"error": "the method took too long"}
        except Exception as e:
            self._guard(_raise, e)

    async def _answer(self, rid, status, answer):
        body = json.dumps(answer).encode()
        if len(body) > _MAX_ANSWER:
            status, body = 500, b'{"error":"the answer is too large"}'
        try:
            await self._mqtt.publish(_ANSWER % (status, rid), body)
        except HubError:
            pass  # the hub has told its caller that the device is gone


def _raise(error):
    raise error
