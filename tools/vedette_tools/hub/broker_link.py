"""The hub's own MQTT connection to its broker: orders go out on it, and wills come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

RETRY_S = 0.02

Will = Callable[[str, bytes], None]  # topic, payload


class BrokerLink:
    """Orders given before it is connected are carried out then."""

    def __init__(self, user: str, secret: str, will: Will) -> None:
        """The secret is client id and password; `will` is called on the event loop."""
        self._user = user
        self._secret = secret
        self._will = will
        self._client: mqtt.Client | None = None
        self._early: list[tuple[str, bytes]] = []

    async def connect(self, path: str, alive: Callable[[], bool], timeout: float) -> bool:
        """Connect to the Unix socket `path` as soon as somebody listens there. False when that is
        not within `timeout` seconds, or no longer to be expected as `alive` says no."""
        loop = asyncio.get_running_loop()
        connected = asyncio.Event()

        def on_connect(client: mqtt.Client, *_: object) -> None:
            # Devices' publishes never come this way: only the wills, which the broker itself
            # publishes.
            client.subscribe("devices/#", qos=1)
            loop.call_soon_threadsafe(connected.set)

        def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            loop.call_soon_threadsafe(self._will, message.topic, bytes(message.payload))

        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._secret,
            protocol=MQTTProtocolVersion.MQTTv311,
            transport="unix",
            reconnect_on_failure=False,  # each start of the broker is connected to anew
        )
        client.username_pw_set(self._user, self._secret)
        client.on_connect = on_connect
        client.on_message = on_message
        deadline = time.monotonic() + timeout
        while alive() and time.monotonic() < deadline:
            try:
                await loop.run_in_executor(None, client.connect, path, 1, 0)
            except OSError:
                await asyncio.sleep(RETRY_S)
                continue
            client.loop_start()
            try:
                await asyncio.wait_for(connected.wait(), deadline - time.monotonic())
            except TimeoutError:
                client.loop_stop()
                return False
            self._client = client
            early, self._early = self._early, []
            for topic, payload in early:
                client.publish(topic, payload)
            return True
        return False

    def order(self, topic: str, payload: bytes) -> None:
        if self._client:
            self._client.publish(topic, payload)
        else:
            self._early.append((topic, payload))

    def close(self) -> None:
        """Close it, and forget the orders that were not carried out."""
        if self._client:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        self._early.clear()
