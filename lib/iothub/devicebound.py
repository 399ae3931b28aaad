"""Cloud-to-device messages. Loaded by HubClient.on_message.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
"""

from . import bag

_TOPIC = "/messages/devicebound/"


class Devicebound:
    def __init__(self, client, mqtt):
        self._guard = client.guard
        self._acknowledge = mqtt.acknowledge
        self._callbacks = []
        client.route(_TOPIC, 1, self._on_message)

    def add(self, callback):
        self._callbacks.append(callback)

    def _on_message(self, topic, payload, packet_id):
        try:
            if payload is not None:
                properties = bag.decode(topic.partition(_TOPIC)[2])
                for callback in self._callbacks:
                    self._guard(callback, payload, properties)
        finally:
            self._acknowledge(packet_id)  # also what cannot be read: it would come for ever
