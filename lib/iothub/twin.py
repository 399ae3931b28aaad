"""The device twin: desired properties come, reported properties go.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#use-device-twins
"""

import asyncio
import json
from time import ticks_add, ticks_ms

from micropython import const

from . import bag
from .errors import HubError
from .mqtt import Reply, wait_until

RESPONSES = "$iothub/twin/res/"
DESIRED = "$iothub/twin/PATCH/properties/desired/"
_GET = "$iothub/twin/GET/?$rid=%d"
_REPORT = "$iothub/twin/PATCH/properties/reported/?$rid=%d"

_MAX_REPORTED = const(32768)  # bytes: the hub's limit
_ANSWER_MS = const(30000)
_RETRY_S = const(10)
_CODES = {429: "throttled", 413: "too-large"}


class Twin:
    def __init__(self, mqtt, guard):
        self._mqtt = mqtt
        self._guard = guard  # calls a callback and swallows what it raises
        self._callbacks = []
        self._requests = asyncio.Lock()  # one at a time
        self._rid = 0

    def on_desired(self, callback):
        self._callbacks.append(callback)

    async def _request(self, topic, body):
        async with self._requests:
            self._rid = rid = self._rid % 65535 + 1
            due = ticks_add(ticks_ms(), _ANSWER_MS)
            await wait_until(self._mqtt.up, due)
            reply = self._mqtt.replies[-rid] = Reply()
            reply.expect(due)
            try:
                await self._mqtt.publish(topic % rid, body)
                return await reply.get()
            finally:
                del self._mqtt.replies[-rid]

    async def report(self, patch):
        body = json.dumps(patch)
        if len(body) > _MAX_REPORTED:
            raise HubError("too-large", "reported properties are over %d bytes" % _MAX_REPORTED)
        return await self._request(_REPORT, body.encode())

    async def fetch(self):
        """Gets the twin and hands on its desired properties, if anybody asked for them."""
        while self._callbacks and self._mqtt.up.is_set():
            try:
                twin = await self._request(_GET, b"")
                return self._hand_on(twin["desired"], True)
            except HubError as e:
                if e.code not in ("throttled", "timeout", "server"):
                    raise
            except (KeyError, TypeError, ValueError):
                raise HubError("protocol", "the twin has no desired properties")
            await asyncio.sleep(_RETRY_S)

    def _hand_on(self, desired, full):
        if not isinstance(desired, dict):
            raise ValueError("desired properties")
        version = desired.pop("$version", 0)
        for callback in self._callbacks:
            self._guard(callback, desired, version, full)

    def on_response(self, topic, payload, _packet_id):
        status, _, query = topic[len(RESPONSES) :].partition("/?")
        query = bag.decode(query)
        reply = self._mqtt.replies.get(-int(query["$rid"]))
        if reply:
            reply.give(self._value(int(status), payload, query))

    @staticmethod
    def _value(status, payload, query):
        if status == 204:
            return int(query.get("$version", 0))
        if status != 200:
            code = _CODES.get(status, "server" if status >= 500 else "rejected")
            return HubError(code, "the hub answered a twin request with %d" % status)
        if payload is None:
            return HubError("too-large", "the twin is over the client's max_message")
        return json.loads(payload)

    def on_patch(self, _topic, payload, _packet_id):
        if payload is not None:
            self._hand_on(json.loads(payload), False)
