"""The AMQP endpoint, against those who are no SDK, or not the owner."""

from __future__ import annotations

import random
import socket
import ssl

import pytest
from hubfixture import LocalHub
from vedette_tools.hub import sas

pytest.importorskip("azure.iot.hub")

from azure.iot.hub import IoTHubRegistryManager  # noqa: E402

pytestmark = pytest.mark.slow

SASL = b"AMQP\x03\x01\x00\x00"
CHOICE = bytes.fromhex("0000001c 02010000 005341 c00f 01 a309") + b"ANONYMOUS"
PASSWORD = (
    bytes.fromhex("0000001d 02010000 005341 c010 02 a305")
    + b"PLAIN"
    + bytes.fromhex("a006 00 75 00 53 41 53")
)
AMQP = b"AMQP\x00\x01\x00\x00"
OPEN = bytes.fromhex("00000011 02000000 005310 c004 01 a101") + b"x"


def talk(hub: LocalHub, data: bytes) -> bytes:
    """What the hub says to `data`, until it closes or has nothing more to say."""
    context = ssl.create_default_context(cafile=str(hub.ca))
    port = hub.connection["amqps_port"]
    heard = b""
    with (
        socket.create_connection((hub.host, port), 10) as plain,
        context.wrap_socket(plain, server_hostname=hub.host) as tls,
    ):
        tls.settimeout(0.1)
        try:
            tls.sendall(data)
            while chunk := tls.recv(4096):
                heard += chunk
        except OSError:
            pass
    return heard


def test_random_bytes_do_no_harm(hub: LocalHub) -> None:
    chance = random.Random(5671)
    beginnings = [b"", SASL, SASL + CHOICE + AMQP, SASL + CHOICE + AMQP + OPEN, AMQP + OPEN]
    beginnings += [SASL + PASSWORD, SASL + PASSWORD[:-3]]
    for _ in range(60):
        whole = chance.choice(beginnings) + chance.randbytes(chance.choice((1, 8, 100)))
        talk(hub, whole[: chance.randrange(1, len(whole) + 1)])
    assert talk(hub, SASL + CHOICE + AMQP + OPEN).startswith(SASL)
    assert AMQP in talk(hub, AMQP + OPEN)
    assert AMQP not in talk(hub, SASL + PASSWORD + AMQP + OPEN)
    assert "Traceback" not in hub.log.read_text()


def test_a_wrong_key_is_refused(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certifi.where", lambda: str(hub.ca))
    hub.create_device("a-1")
    string = hub.connection["service_connection_string"]
    wrong = string.partition("SharedAccessKey=")[0] + "SharedAccessKey=" + sas.new_key()
    with pytest.raises(Exception, match="401"):
        IoTHubRegistryManager.from_connection_string(wrong).send_c2d_message("a-1", "x")
    assert hub.service.request("GET", "/devices/a-1")["cloudToDeviceMessageCount"] == 0
