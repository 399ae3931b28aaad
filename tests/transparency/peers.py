"""What the applications talk to, on CPython: servers, and a relay that counts what passes."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

QUIT = b"QUIT\n"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that is free now, below the range that the kernel gives to clients."""
    for port in range(21000 + int(time.time() * 1000) % 9000, 32000):
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, until a client says QUIT."""

    def handle(self) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                tail = (tail + data)[-len(QUIT) :]
                self.request.sendall(data)
                if tail == QUIT:
                    break


class Reset(socketserver.BaseRequestHandler):
    """Resets the connection once something has come."""

    def handle(self) -> None:
        self.request.recv(1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


class UdpEcho(socketserver.BaseRequestHandler):
    counted = [0, 0, 0]  # datagrams, bytes in, bytes out

    def handle(self) -> None:
        data, sock = self.request
        self.counted[0] += 1
        self.counted[1] += len(data)
        self.counted[2] += len(data)
        sock.sendto(data, self.client_address)


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(200 if self.path == "/" else 404, b"w" * 2000)

    def do_POST(self) -> None:
        self.reply(201, self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type, tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        super().__init__(("127.0.0.1", 0), handler)

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        if self.tls:
            with (
                contextlib.suppress(OSError),
                self.tls.wrap_socket(request, server_side=True) as s,
            ):
                super().finish_request(s, client_address)
                with contextlib.suppress(OSError):
                    s.unwrap()
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A TCP server of `handler`; gives its port."""
    with _Server(handler, tls) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextlib.contextmanager
def udp_echo() -> Iterator[tuple[int, list[int]]]:
    """A UDP echo server; gives its port, and datagrams, bytes in and out as they are counted."""

    class Handler(UdpEcho):
        counted = [0, 0, 0]

    with socketserver.UDPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1], Handler.counted
        server.shutdown()


class Relay:
    """Passes TCP connections on to a port of this host, and counts the bytes of each."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.counts: list[list[int]] = []  # for each connection: bytes to the target, bytes back
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def settled(self) -> list[tuple[int, int]]:
        """The counts, once all connections have ended."""
        for thread in self.threads:
            thread.join(10)
        return [(there, back) for there, back in self.counts]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.target))
                counts = [0, 0]
                self.counts.append(counts)
                for way, (a, b) in enumerate(((near, far), (far, near))):
                    thread = threading.Thread(
                        target=self._pump, args=(a, b, counts, way), daemon=True
                    )
                    self.threads.append(thread)
                    thread.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, counts: list[int], way: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                counts[way] += len(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """mosquitto without authentication; gives its port."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    program = shutil.which(
        "mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin"
    )
    assert program, "mosquitto is not installed"
    process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(5)
