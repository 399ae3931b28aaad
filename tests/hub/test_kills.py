"""The hub's processes killed at random while a device sends: what was acknowledged is stored."""

from __future__ import annotations

import collections
import random
import threading
import time

import pytest
from hubfixture import LocalHub
from mqttclient import Device

WINDOW = 40  # messages in flight
DRAIN_S = 30


class Sender(threading.Thread):
    """Sends number after number; what was not acknowledged, on the next connection again."""

    def __init__(self, hub: LocalHub, connection_string: str) -> None:
        super().__init__(daemon=True)
        self.sent: collections.Counter[int] = collections.Counter()
        self.acknowledged: set[int] = set()
        self.connections = 0
        self._hub = hub
        self._string = connection_string
        self._waiting: set[int] = set()  # sent, not acknowledged
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End, once all that was sent is acknowledged."""
        self._stopping.set()
        self.join(DRAIN_S)
        assert not self.is_alive(), f"never acknowledged: {sorted(self._waiting)[:20]}"

    def run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            device = Device(self._hub, self._string)
            try:
                refused = device.connect()
            except OSError:
                refused = 1
            if refused:
                time.sleep(0.02)
                continue
            self.connections += 1
            self._use(device)
            device.close()

    def _use(self, device: Device) -> None:
        numbers: dict[int, int] = {}  # of this connection: packet id -> number
        acknowledgements: collections.deque[int] = collections.deque()
        device.client.on_publish = lambda _c, _d, mid, _r, _p: acknowledgements.append(mid)
        again = sorted(self._waiting)
        while device.client.is_connected() and (self._waiting or not self._stopping.is_set()):
            while acknowledgements:
                number = numbers[acknowledgements.popleft()]
                self.acknowledged.add(number)
                self._waiting.discard(number)
            if again:
                number = again.pop(0)
            elif len(self._waiting) < WINDOW and not self._stopping.is_set():
                number = len(self.sent)
            else:
                time.sleep(0.001)
                continue
            self._waiting.add(number)
            self.sent[number] += 1
            topic = f"{device.path}/messages/events/$.mid={number}"
            numbers[device.client.publish(topic, str(number), qos=1).mid] = number


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(5, marks=pytest.mark.timeout(120)),
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_hub_and_broker_killed_at_random(own_hub: LocalHub, rounds: int) -> None:
    hub = own_hub
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sender = Sender(hub, hub.create_device("d"))
    sender.start()
    for _ in range(rounds):
        time.sleep(chance.uniform(0.0, 0.6))
        process = chance.choice(("hub", "broker"))
        hub.kill9(process)
        if process == "hub":
            time.sleep(chance.choice((0, 0, 0.3)))
            hub.start()
    sender.stop()
    stored = collections.Counter(
        int(event["systemProperties"]["$.mid"]) for event in hub.wait_events("d", len(sender.sent))
    )
    again = sender.sent.total() - len(sender.sent)
    print(f"{len(sender.sent)} messages, {again} sent again, {sender.connections} connections")
    assert sender.connections > 1 and len(sender.sent) > 100 * rounds
    assert sender.acknowledged == set(sender.sent)
    assert set(stored) == set(sender.sent)
    repeated = {number: times for number, times in stored.items() if times > sender.sent[number]}
    assert not repeated, "stored more often than sent"
