"""Cloud-to-device messages. Loaded by HubClient.on_message.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
"""

import asyncio

from micropython import const

from .client import MESSAGE
from .decoding import decode
from .errors import HubError

_TOPIC = "/messages/devicebound/"
_PUBACK = const(0x40)
_ACKS = const(64)  # that wait for a packet to end: more than a hub has under way (50)


class Devicebound:
    def __init__(self, client):
        self._client = client
        self._received = []  # packet ids that are to be acknowledged
        self._task = None
        client.route(_TOPIC, 1, self._on_message)

    def _on_message(self, topic, payload, packet_id):
        try:
            if payload is not None:
                properties = decode(topic.partition(_TOPIC)[2])
                self._client.tell(MESSAGE, payload, properties)
        finally:  # also what cannot be read is acknowledged: it would come for ever
            if packet_id and len(self._received) < _ACKS:
                self._received.append(packet_id)
                if not self._task or self._task.done():
                    self._task = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self):
        received = self._received
        try:
            while received:
                parts = (received[0].to_bytes(2, "big"),)
                if not await self._client.session.write(_PUBACK, parts):
                    break
                received.pop(0)
        except HubError:
            pass
        finally:
            received.clear()  # what was not acknowledged comes again after the next connect
