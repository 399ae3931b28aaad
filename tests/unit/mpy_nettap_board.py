"""The tap on a board's kind of socket module: addresses are tuples, sockets have no file number.

No board is at hand: a stand-in with the interface of the ESP32, STM32 and RP2 modules takes the
place of `socket` before the tap is imported.
"""

import io
import select
import socket as unix
import sys

TCP, UDP = 6, 17
IN, OUT = 0, 1
LOCALHOST = b"\x7f\0\0\1"


class BoardSocket(io.IOBase):
    def __init__(self, *args):
        self.inner = unix.socket(*args)
        self.poller = select.poll()
        self.poller.register(self.inner)

    def __getattr__(self, name):
        if name in ("fileno", "__enter__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def ioctl(self, request, argument):
        if request == 3:
            self.poller.modify(self.inner, argument)
            return sum(event for _, event in self.poller.ipoll(0))
        if request == 4:
            self.inner.close()
            return 0
        return -22

    def connect(self, address):
        self.inner.connect(to_unix(address))

    def bind(self, address):
        self.inner.bind(to_unix(address))

    def sendto(self, data, address):
        return self.inner.sendto(data, to_unix(address))

    def accept(self):
        inner, address = self.inner.accept()
        accepted = BoardSocket()
        accepted.inner.close()
        accepted.inner = inner
        accepted.poller.register(inner)
        return accepted, to_board(address)

    def recvfrom(self, size):
        data, address = self.inner.recvfrom(size)
        return data, to_board(address)

    def makefile(self, *args):
        return self


class BoardModule:
    AF_INET = unix.AF_INET
    AF_INET6 = unix.AF_INET6
    SOCK_STREAM = unix.SOCK_STREAM
    SOCK_DGRAM = unix.SOCK_DGRAM
    SOCK_RAW = unix.SOCK_RAW
    SOL_SOCKET = unix.SOL_SOCKET
    SO_REUSEADDR = unix.SO_REUSEADDR
    socket = BoardSocket

    def __init__(self):
        self.resolved = 0

    def getaddrinfo(self, host, port, *rest):
        self.resolved += 1
        found = unix.getaddrinfo(host, port, unix.AF_INET, unix.SOCK_STREAM)
        return [(2, 1, 0, host, to_board(entry[-1])) for entry in found]


def to_unix(address):
    return unix.getaddrinfo(address[0] or "0.0.0.0", address[1], unix.AF_INET)[0][-1]


def to_board(address):
    family, host, port = unix.sockaddr(address)[:3]
    return unix.inet_ntop(family, host), port


board_module = BoardModule()
sys.modules["socket"] = board_module

import echo  # noqa: E402 - after the stand-in
import flowtable  # noqa: E402
from harness import SkipTest  # noqa: E402
from nettap import board, sockets  # noqa: E402


class Tapped:
    def __enter__(self):
        self.table = flowtable.FlowTable()
        sockets.errors = 0
        sockets.install(self.table)
        return sys.modules["socket"], self

    def __exit__(self, *exc):
        sockets.uninstall()
        sockets.local_address = None

    def flows(self):
        snapshot = bytearray(self.table.snapshot_size())
        self.table.drain(snapshot)
        return list(flowtable.unpack(snapshot))


def bound(sock, host="127.0.0.1"):
    for port in range(21000, 32000):
        try:
            sock.bind((host, port))
            return port
        except OSError:
            pass


def test_addresses_in_text_are_decoded():
    for text, data in (
        ("192.168.4.1", b"\xc0\xa8\x04\x01"),
        ("0.0.0.0", bytes(4)),
        ("", bytes(4)),
        ("::", bytes(16)),
        ("::1", bytes(15) + b"\1"),
        ("fe80::1%2", b"\xfe\x80" + bytes(13) + b"\1"),
        ("2001:db8:0:1:a:b:c:d", b" \x01\r\xb8\0\0\0\1\0\n\0\x0b\0\x0c\0\r"),
        ("2001:db8::", b" \x01\r\xb8" + bytes(12)),
    ):
        assert board.decode((text, 80)) == (data, 80), text
    for bad in ("example.org", "1.2.3.x", "300.1.1.1"):
        try:
            board.decode((bad, 1))
            raise AssertionError(bad)
        except ValueError:
            pass


def test_connections_and_datagrams_are_seen():
    with Tapped() as (socket, tap):
        listener = socket.socket()
        port = bound(listener)
        listener.listen(1)
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        server, peer = listener.accept()
        assert peer[0] == "127.0.0.1" and isinstance(server, socket.socket)
        assert client.makefile("rwb") is client and not hasattr(client, "fileno")
        client.send(b"12345")
        assert server.read(5) == b"12345"
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp_port = bound(udp)
        udp.sendto(b"abc", ("127.0.0.1", udp_port))
        assert udp.recvfrom(9) == (b"abc", ("127.0.0.1", udp_port))
        assert sockets.listening() == [(TCP, LOCALHOST, port), (UDP, LOCALHOST, udp_port)]
        flows = tap.flows()
        # The client's local end is unknown; the server has what it was bound to.
        assert [f[:2] + f[3:10] for f in flows] == [
            (TCP, IN, LOCALHOST, port, LOCALHOST, peer[1], 5, 0, 1),
            (TCP, OUT, None, 0, LOCALHOST, port, 0, 5, 1),
            (UDP, OUT, LOCALHOST, udp_port, LOCALHOST, udp_port, 3, 3, 2),
        ]
    assert sockets.errors == 0


def test_the_interfaces_address_is_the_local_one():
    with Tapped() as (socket, tap):
        asked = []

        def local_address(remote):
            asked.append(remote)
            return b"\x0a\0\0\x05"

        sockets.local_address = local_address
        listener = socket.socket()
        port = bound(listener, "0.0.0.0")
        listener.listen(1)
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        listener.accept()
        assert [f[3:5] for f in tap.flows()] == [(b"\x0a\0\0\x05", port), (b"\x0a\0\0\x05", 0)]
        assert LOCALHOST in asked


def test_a_name_is_connected_to_on_esp32_only():
    platform = sys.platform
    with Tapped() as (socket, tap):
        listener = socket.socket()
        port = bound(listener)
        listener.listen(1)

        class Platform:
            platform = "esp32"

        board.sys = Platform
        try:
            socket.socket().connect(("localhost", port))
            resolved = board_module.resolved
            assert [f[5] for f in tap.flows()] == [LOCALHOST]
            assert sockets.host_name(LOCALHOST) == "localhost" and resolved
        finally:
            board.sys = sys
        assert sys.platform == platform != "esp32"
        socket.socket().connect(("localhost", port))  # left to the native socket
        assert board_module.resolved == resolved


def test_poll_asks_sockets_without_a_file_number():
    with Tapped() as (socket, _):
        listener = socket.socket()
        port = bound(listener)
        listener.listen(1)
        client = socket.socket()
        client.connect(("127.0.0.1", port))
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(client, select.POLLIN)
        assert [sock for sock, _ in poll.poll(1000)] == [listener]
        server = listener.accept()[0]
        assert poll.poll(0) == []
        server.write(b"x")
        assert poll.poll(1000) == [(client, select.POLLIN)]


async def test_asyncio_streams():
    import asyncio

    with Tapped() as (_, tap):

        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        for port in range(22000, 32000):
            try:
                server = await asyncio.start_server(echo, "127.0.0.1", port)
                break
            except OSError:
                pass
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        await writer.drain()
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert sorted(f[7:10] for f in tap.flows()) == [(6, 6, 1), (6, 6, 1)]
    assert sockets.errors == 0


def test_a_ping_library_is_seen():
    """One as is used on boards: a raw socket that is connected, polled and read."""
    with Tapped() as (socket, tapped):
        sockets.local_address = lambda remote: b"\xc0\0\2\7"
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
        except OSError:
            raise SkipTest("raw sockets need CAP_NET_RAW")
        sock.connect((socket.getaddrinfo("127.0.0.1", 1)[0][-1][0], 1))
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert sock.send(echo.request(echo.ICMP)) == 64
        while True:
            assert poll.poll(2000)
            if memoryview(sock.recv(84))[20] == 0:  # the reply, behind the header of IPv4
                break
        (flow,) = tapped.flows()
        assert flow[:7] == (1, OUT, 0, b"\xc0\0\2\7", 0, LOCALHOST, 0), flow
        assert flow[7:10] == (128, 64, 3) and sockets.errors == 0, flow
