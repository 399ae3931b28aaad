"""QoS 1 messages of 600 bytes a second over verified TLS, by one client of two.

Arguments: `iothub` or `umqtt`, connection string, CA (DER). umqtt.simple is as it is, on a TLS
stream with TCP_NODELAY; iothub has 16 senders, as its window allows.
"""

import asyncio
import json
import socket
import sys
import time

from iothub import Credentials, HubClient
from iothub.keys import token

_MESSAGES = 4000
_BODY = b"x" * 600
_SENDERS = 16


async def ours(credentials, ca):
    client = HubClient(credentials, [ca])
    client.start()
    await client.wait_connected(20)
    count = 0

    async def sender():
        nonlocal count
        while count < _MESSAGES:
            count += 1
            await client.send(_BODY)

    began = time.ticks_us()
    await asyncio.gather(*[sender() for _ in range(_SENDERS)])
    elapsed = time.ticks_diff(time.ticks_us(), began)
    await client.stop()
    return elapsed


class TlsSocket:
    """As much of a socket as umqtt's connect() asks for, verified."""

    def __init__(self, host, ca):
        self._host = host
        self._ca = ca

    def connect(self, address):
        import tls

        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        with open(self._ca, "rb") as file:
            context.load_verify_locations(file.read())
        plain = socket.socket()
        plain.setsockopt(6, 1, 1)  # TCP_NODELAY
        plain.connect(address)
        self.stream = context.wrap_socket(plain, server_hostname=self._host)
        self.read = self.stream.read
        self.write = self.stream.write


class Module:
    """As much of the module `socket` as umqtt's connect() asks for."""

    def __init__(self, host, ca):
        self.socket = lambda: TlsSocket(host, ca)
        self.getaddrinfo = socket.getaddrinfo


def umqtt(credentials, ca):
    import umqtt.simple as simple

    simple.socket = Module(credentials.host, ca)
    client = simple.MQTTClient(
        credentials.client_id,
        credentials.host,
        credentials.port,
        credentials.user,
        token(credentials, 3600),
        240,
    )
    client.connect()
    client.sock = client.sock.stream
    topic = credentials.path + "/messages/events/"
    began = time.ticks_us()
    for _ in range(_MESSAGES):
        client.publish(topic, _BODY, qos=1)
    elapsed = time.ticks_diff(time.ticks_us(), began)
    client.disconnect()
    return elapsed


def main(which, connection_string, ca):
    credentials = Credentials.parse(connection_string)
    if which == "iothub":
        elapsed = asyncio.run(ours(credentials, ca))
    else:
        elapsed = umqtt(credentials, ca)
    print(json.dumps({"rate": [_MESSAGES * 1000000 / elapsed]}))


main(*sys.argv[1:])
