"""iothub.mqtt on umqtt.simple as upstream has it now: `ssl` is a context, connect has a limit."""

import asyncio
import struct
import sys


class MQTTClient:
    """What of upstream's class can be called: its signatures, without what blocks."""

    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0, ssl=None):
        self.client_id = client_id
        self.sock = None
        self.server = server
        self.port = port or (8883 if ssl else 1883)
        self.ssl = ssl
        self.pid = 0
        self.cb = None
        self.user = user
        self.pswd = password
        self.keepalive = keepalive

    def _send_str(self, s):
        self.sock.write(struct.pack("!H", len(s)))
        self.sock.write(s)

    def connect(self, clean_session=True, timeout=None):
        raise NotImplementedError

    def ping(self):
        self.sock.write(b"\xc0\0")


class Simple:
    pass


Simple.MQTTClient = MQTTClient
Simple.simple = Simple
sys.modules["umqtt"] = sys.modules["umqtt.simple"] = Simple

from mpy_iothub_mqtt import Bench, settle  # noqa: E402


async def test_publish_and_ping():
    session = await Bench(keepalive=1).connect()
    assert isinstance(session.mqtt, MQTTClient)
    task = session.send("t", b"x")
    await settle()
    assert session.link.take() == b"\x32\x06\0\x01t\0\x01x"
    session.link.feed(b"\x40\x02\0\x01")
    await task
    await asyncio.sleep_ms(800)
    session.mqtt.check()
    assert session.link.take() == b"\xc0\0"
