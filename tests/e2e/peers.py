"""The other ends of a test's connections, on CPython: they know what was really sent."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UdpSink:
    """Counts datagrams and bytes by the port they came from."""

    def __init__(self, sock: socket.socket) -> None:
        self.port: int = sock.getsockname()[1]
        self.datagrams: collections.Counter[int] = collections.Counter()
        self.bytes: collections.Counter[int] = collections.Counter()


@contextmanager
def udp_sink() -> Iterator[UdpSink]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.1)
        sink = UdpSink(sock)
        stop = threading.Event()

        def receive() -> None:
            while not stop.is_set():
                try:
                    data, peer = sock.recvfrom(65536)
                except TimeoutError:
                    continue
                sink.datagrams[peer[1]] += 1
                sink.bytes[peer[1]] += len(data)

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield sink
        finally:
            stop.set()
            thread.join()


class TcpEcho:
    """Answers each connection with twice what it read; knows the sizes by the client's port."""

    def __init__(self, sock: socket.socket) -> None:
        self.port: int = sock.getsockname()[1]
        self.received: dict[int, int] = {}


@contextmanager
def tcp_echo() -> Iterator[TcpEcho]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as sock:
        sock.settimeout(0.1)
        echo = TcpEcho(sock)
        stop = threading.Event()

        def serve(connection: socket.socket, port: int) -> None:
            with connection, contextlib.suppress(TimeoutError):  # a client that went silent
                total = 0
                while data := connection.recv(65536):
                    total += len(data)
                    connection.sendall(data + data)
                echo.received[port] = total

        def accept() -> None:
            while not stop.is_set():
                try:
                    connection, peer = sock.accept()
                except TimeoutError:
                    continue
                connection.settimeout(10)
                threading.Thread(target=serve, args=(connection, peer[1]), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield echo
        finally:
            stop.set()
            thread.join()


def free_range(count: int) -> int:
    """The first of so many UDP ports on loopback that nobody has now."""
    for first in range(20000, 60000 - count, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")
