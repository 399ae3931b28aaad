"""umqtt.simple with a broker."""

from transcript import show
from umqtt.simple import MQTTClient


def main(port):
    client = MQTTClient("transparent", "127.0.0.1", int(port), keepalive=30)
    got = []
    client.set_callback(lambda topic, message: got.append((topic, message)))
    show("connect", client.connect)
    show("subscribe", client.subscribe, b"a/+", 1)
    show("publish 0", client.publish, b"a/b", b"first")
    show("publish 1", client.publish, b"a/c", b"second" * 300, False, 1)
    while len(got) < 2:
        client.wait_msg()
    print(sorted(got))
    show("nothing", client.check_msg)
    show("ping", client.ping)
    show("pong", client.wait_msg)
    show("disconnect", client.disconnect)
