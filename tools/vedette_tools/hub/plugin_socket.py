"""The hub's end of the Unix socket on which the broker's plugin asks and wakes it."""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger("vedette.hub.broker")

MQTT_3_1_1 = 4


class ConnectRequest(NamedTuple):
    """A client's CONNECT, as the plugin puts it to the hub."""

    client_id: str
    username: str
    password: str
    clean: bool
    certificate: bytes = b""  # DER; empty where none was shown

    def __repr__(self) -> str:  # never the password
        return f"ConnectRequest({self.client_id!r}, {self.username!r})"


class PluginProtocol(asyncio.Protocol):
    """The hub's end of the plugin's socket: "W" is a wake, "A" a question about a CONNECT."""

    _LENGTH = struct.Struct("=I")

    def __init__(
        self, admit: Callable[[ConnectRequest], str | None], spooled: Callable[[], None]
    ) -> None:
        self._admit = admit
        self._spooled = spooled
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        woken = False
        while self._buffer:
            if self._buffer[0] == ord("W"):
                woken = True
                del self._buffer[0]
                continue
            head = 1 + self._LENGTH.size
            if len(self._buffer) < head:
                break
            end = head + self._LENGTH.unpack_from(self._buffer, 1)[0]
            if len(self._buffer) < end:
                break
            question = bytes(self._buffer[head:end])
            del self._buffer[:end]
            answer = (self._answer(question) or "").encode()
            self._transport.write(struct.pack("=H", len(answer)) + answer)
        if woken:
            self._spooled()

    def _answer(self, question: bytes) -> str | None:
        try:
            client_id, username, password, clean, version, certificate = (
                part.decode() for part in question.split(b"\0")[:6]
            )
        except ValueError:
            return None
        if int(version) != MQTT_3_1_1:
            log.info("%s refused: MQTT 3.1.1 is what is spoken here", client_id)
            return None
        der = base64.b64decode(certificate)
        return self._admit(ConnectRequest(client_id, username, password, clean == "1", der))
