"""A hub of a few lines that misbehaves on demand: what a real broker cannot be made to do."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType


class FakeHub:
    """Serves one TLS connection after another, each in a thread.

    `refuse`: the code in CONNACK. `silent`: takes all, answers nothing. `deaf`: stops reading.
    `latency`: seconds before each answer. `twin`: the JSON that a twin request gets. `assignment`:
    what it answers as a provisioning service, after `polls` polls. With `client_authority` (a PEM
    file) devices have to show a certificate; the common names seen are in `names`.
    """

    def __init__(self, certificate: Path, client_authority: Path | None = None) -> None:
        self.names: list[str] = []
        self.assignment: dict[str, object] = {}
        self.assignment_status = 200
        self.polls = 0
        self.refuse = 0
        self.silent = False
        self.deaf = threading.Event()
        self.latency = 0.0
        self.twin = b'{"desired":{"$version":1},"reported":{"$version":1}}'
        self.connects: list[bytes] = []
        self.published: list[tuple[int, str, bytes]] = []  # first byte, topic, payload
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        if client_authority:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_authority)
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A small window, so that a hub that stops reading is soon felt.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._sending = threading.Lock()  # two threads may not write to one SSLSocket at once

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more."""
        if self._listener.fileno() != -1:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Ends the connections that are there."""
        for connection in self._connections:
            try:
                # Not SSLSocket's own, which would go on with the bare bytes.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass
        self._connections.clear()

    def send(self, packet: bytes) -> None:
        """To the device, as it is."""
        with self._sending:
            self._connections[-1].sendall(packet)

    def show(self, certificate: Path) -> None:
        """Another certificate, from the next connection on."""
        self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.silent:
                self._connections.append(plain)
                while plain.recv(4096):
                    pass
                return
            with self._context.wrap_socket(plain, server_side=True) as connection:
                self._connections.append(connection)
                if shown := connection.getpeercert():
                    self.names.append(dict(part[0] for part in shown["subject"])["commonName"])
                for first, body in self._packets(connection):
                    if answer := self._answer(first, body):
                        time.sleep(self.latency)
                        with self._sending:
                            connection.sendall(answer)
        except (OSError, EOFError):
            pass

    def _answer(self, first: int, body: bytes) -> bytes:
        kind = first >> 4
        if kind == 1:
            self.connects.append(body)
            return bytes((0x20, 2, 0, self.refuse))
        answer = self._published(first, body) if kind == 3 else b""
        if self.silent:
            return b""
        if kind == 8:
            return b"\x90\x04" + body[:2] + b"\0\0"
        if kind == 12:
            return b"\xd0\0"
        return answer

    def _published(self, first: int, body: bytes) -> bytes:
        size = struct.unpack("!H", body[:2])[0]
        topic = body[2 : 2 + size].decode()
        rest = body[2 + size :]
        if first & 6:
            self.published.append((first, topic, rest[2:]))
            return b"\x40\x02" + rest[:2]
        self.published.append((first, topic, rest))
        if topic.startswith("$iothub/twin/GET/"):
            return publish(f"$iothub/twin/res/200/{topic.partition('GET/')[2]}", self.twin)
        if topic.startswith("$iothub/twin/PATCH/properties/reported/"):
            rid = topic.partition("$rid=")[2]
            return publish(f"$iothub/twin/res/204/?$rid={rid}&$version=2", b"")
        if topic.startswith("$dps/"):
            return self._provision(topic)
        return b""

    def _provision(self, topic: str) -> bytes:
        rid = topic.partition("$rid=")[2].partition("&")[0]
        if self.polls:
            self.polls -= 1
            waiting = b'{"operationId":"op-1","status":"assigning"}'
            return publish(f"$dps/registrations/res/202/?$rid={rid}&retry-after=1", waiting)
        answer = json.dumps(self.assignment).encode()
        return publish(f"$dps/registrations/res/{self.assignment_status}/?$rid={rid}", answer)

    def _packets(self, connection: ssl.SSLSocket) -> Iterator[tuple[int, bytes]]:
        while True:
            first = self._exactly(connection, 1)[0]
            size = shift = 0
            while True:
                byte = self._exactly(connection, 1)[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            yield first, self._exactly(connection, size)

    def _exactly(self, connection: ssl.SSLSocket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            while self.deaf.is_set():
                time.sleep(0.02)
            part = connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def publish(topic: str, payload: bytes) -> bytes:
    """A PUBLISH packet of QoS 0."""
    body = struct.pack("!H", len(topic)) + topic.encode() + payload
    header = b"\x30"
    size = len(body)
    while size > 127:
        header += bytes((size & 127 | 128,))
        size >>= 7
    return header + bytes((size,)) + body
