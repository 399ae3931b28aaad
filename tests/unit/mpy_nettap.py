"""The tap: what it tells a sink of an application's sockets, and that it is never in the way."""

import gc
import select
import socket as native
import sys
from errno import EADDRINUSE, EALREADY, ECONNREFUSED, EINPROGRESS

import echo
import flowtable
import micropython
from echo import ICMP, ICMP6
from harness import SkipTest
from nettap import linux, protocols, sockets

TCP, UDP = 6, 17
IN, OUT = 0, 1
LOCALHOST = b"\x7f\0\0\1"
EISCONN = 106


class Sink:
    """Keeps what it is told; `stale` tokens are not counted, `full` refuses new flows."""

    def __init__(self):
        self.opened = []
        self.counted = {}
        self.apps = {}
        self.full = False
        self.stale = set()

    def open(self, protocol, direction, laddr, lport, raddr, rport, app=0):
        self.opened.append((protocol, direction, laddr, lport, raddr, rport, app))
        if self.full:
            return -1
        token = len(self.opened)
        self.counted[token] = [0, 0, 0]
        return token

    def count(self, way, token, size):
        if token not in self.counted or token in self.stale:
            return 0
        self.counted[token][way] += size
        self.counted[token][2] += 1
        return 1

    def count_in(self, token, size):
        return self.count(IN, token, size)

    def count_out(self, token, size):
        return self.count(OUT, token, size)

    def set_app(self, token, app):
        self.apps[token] = app


class Tapped:
    """With the tap in; gives the replacement of the module `socket`."""

    def __init__(self, sink):
        self.sink = sink

    def __enter__(self):
        sockets.errors = 0
        sockets.install(self.sink)
        import socket

        assert socket is not native
        return socket

    def __exit__(self, *exc):
        sockets.uninstall()
        sockets.include_own = False
        sockets.local_address = None


def address(port, host="127.0.0.1"):
    return native.getaddrinfo(host, port)[0][-1]


def bound(sock):
    """Bind to a free port of localhost; the port."""
    for port in range(21000, 32000):
        try:
            sock.bind(address(port))
            return port
        except OSError:
            pass


def pair(socket):
    """A tapped client and the tapped server side of one connection, and the server's port."""
    listener = socket.socket()
    port = bound(listener)
    listener.listen(5)
    client = socket.socket()
    client.connect(address(port))
    server = listener.accept()[0]
    listener.close()
    return client, server, port


def closed_port():
    probe = native.socket()
    port = bound(probe)
    probe.close()
    return port


def test_a_connection_is_a_flow_on_both_sides():
    sink = Sink()
    with Tapped(sink) as socket:
        client, server, port = pair(socket)
        client.send(b"12345")
        server.recv(10)
        server.write(b"123")
        client.read(2)
        client.readinto(bytearray(1))
        (out,) = [flow for flow in sink.opened if flow[1] == OUT]
        (inward,) = [flow for flow in sink.opened if flow[1] == IN]
        assert out[0] == TCP and out[4:6] == (LOCALHOST, port)
        assert inward[:4] == (TCP, IN, LOCALHOST, port)
        # Each side's local end is the other's remote end.
        assert out[2:4] == inward[4:6]
        assert [counts[:2] for counts in sink.counted.values()] == [[3, 5], [5, 3]] or [
            counts[:2] for counts in sink.counted.values()
        ] == [[5, 3], [3, 5]]
    assert sockets.errors == 0


def test_connections_to_one_server_differ_by_their_local_port():
    sink = Sink()
    with Tapped(sink) as socket:
        listener = socket.socket()
        port = bound(listener)
        listener.listen(20)
        clients = [socket.socket() for _ in range(20)]
        for client in clients:
            client.connect(address(port))
            client.send(b"x")
        flows = [flow for flow in sink.opened if flow[1] == OUT]
        assert len({flow[3] for flow in flows}) == 20 and 0 not in [flow[3] for flow in flows]
        assert all(counts[1] == 1 for counts in sink.counted.values())


def test_bytes_of_a_connection_that_is_closed_before_it_is_looked_up():
    sink = Sink()
    with Tapped(sink) as socket:
        listener = native.socket()
        port = bound(listener)
        listener.listen(1)
        for _ in range(40):
            client = socket.socket()
            client.connect(address(port))
            client.send(b"12345")
            client.close()
            listener.accept()[0].close()
        assert len(sink.opened) == 40
        assert sum(counts[1] for counts in sink.counted.values()) == 200


def test_local_ends_are_told_whoever_chose_the_port():
    """Where the kernel does not take the port that it was asked for, it is asked what it took."""
    if linux._getsockname:
        raise SkipTest("libc tells local ends here")
    from nettap import unnamed

    sink = Sink()
    with Tapped(sink) as socket:
        listener = native.socket()
        port = bound(listener)
        listener.listen(9)
        first = native.socket()
        first.connect(address(port))
        taken = native.sockaddr(listener.accept()[1])[2]
        unnamed._choose(first)
        chosen = unnamed._ports
        # Taken, not in the kernel's range, and before Linux 6.3.
        for ports in (chosen, (taken, 1), (1, 1), (0, 0)):
            unnamed._ports = ports
            client = socket.socket()
            client.connect(address(port))
            there = native.sockaddr(listener.accept()[1])
            assert sink.opened[-1][2:4] == (LOCALHOST, there[2]), ports
            client.close()
        unnamed._ports = chosen
    assert sockets.errors == 0


def test_ipv6():
    sink = Sink()
    loopback = bytes(15) + b"\1"
    with Tapped(sink) as socket:
        listener = socket.socket(socket.AF_INET6)
        for port in range(21000, 32000):
            try:
                listener.bind(address(port, "::1"))
                break
            except OSError as error:
                if error.errno != EADDRINUSE:
                    raise SkipTest("no IPv6 here")
        listener.listen(1)
        assert sockets.listening() == [(TCP, loopback, port)]
        client = socket.socket(socket.AF_INET6)
        client.connect(address(port, "::1"))
        server, back = listener.accept()
        peer = native.sockaddr(back)[2]
        client.send(b"12345")
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.sendto(b"x", address(port, "::1"))
        assert [flow[:6] for flow in sink.opened[:2]] == [
            (TCP, OUT, loopback, peer, loopback, port),
            (TCP, IN, loopback, port, loopback, peer),
        ]
        assert sink.opened[2][:3] == (UDP, OUT, loopback) and sink.opened[2][3]
    assert sockets.errors == 0


def test_a_datagram_socket_has_the_address_that_leads_to_its_peer():
    sink = Sink()
    with Tapped(sink) as socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server = native.socket(native.AF_INET, native.SOCK_DGRAM)
        port = bound(server)
        client.sendto(b"x", address(port))
        back = native.sockaddr(server.recvfrom(1)[1])
        assert sink.opened == [(UDP, OUT, LOCALHOST, back[2], LOCALHOST, port, 0)]


def test_a_port_that_the_kernel_chose_for_a_listener():
    with Tapped(Sink()) as socket:
        listener = socket.socket()
        listener.bind(address(0))
        listener.listen(1)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(address(0, "0.0.0.0"))
        tcp, udp = sockets.listening()
        native.socket().connect(address(tcp[2]))
        assert tcp[:2] == (TCP, LOCALHOST) and udp[:2] == (UDP, None) and udp[2]


def test_a_refused_connect_is_a_flow_that_was_tried():
    sink = Sink()
    with Tapped(sink) as socket:
        port = closed_port()
        try:
            socket.socket().connect(address(port))
            raise AssertionError("connected")
        except OSError:
            pass
        assert [flow[:2] + flow[4:6] for flow in sink.opened] == [(TCP, OUT, LOCALHOST, port)]


def test_polling_a_connect_by_connect_is_one_opening():
    sink = Sink()
    with Tapped(sink) as socket:
        listener = native.socket()
        port = bound(listener)
        listener.listen(1)
        client = socket.socket()
        client.setblocking(False)
        for _ in range(3):
            try:
                client.connect(address(port))
            except OSError:
                pass
        assert len(sink.opened) == 1


def test_each_try_after_a_refused_one_is_an_opening():
    sink = Sink()
    with Tapped(sink) as socket:
        port = closed_port()
        client = socket.socket()
        for tries in range(1, 4):
            try:
                client.connect(address(port))
                raise AssertionError("connected")
            except OSError as error:
                assert error.errno == ECONNREFUSED
            assert len(sink.opened) == tries
        listener = native.socket()
        listener.bind(address(port))
        listener.listen(1)
        client.connect(address(port))
        client.send(b"hello")
        assert len(sink.opened) == 4 and sink.counted[4] == [0, 5, 1]


def test_a_refusal_that_is_asked_for_is_no_opening():
    class Native:
        answers = [EINPROGRESS, EALREADY, ECONNREFUSED, EINPROGRESS, EALREADY, None, EISCONN]

        def connect(self, there):
            answer = self.answers.pop(0)
            if answer:
                raise OSError(answer)

        def setsockopt(self, *option):
            pass

        def fileno(self):
            return 0

    sink = Sink()
    counts = []
    with Tapped(sink) as socket:
        client = socket.socket()
        client._native = Native()
        while Native.answers:
            try:
                client.connect(address(9))
            except OSError:
                pass
            counts.append(len(sink.opened))
    assert counts == [1, 1, 1, 2, 2, 2, 2], counts


def test_each_datagram_is_counted_for_its_peer():
    sink = Sink()
    with Tapped(sink) as socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        port = bound(server)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there = address(port)
        for data in (b"one", b"", b"three"):
            client.sendto(data, there)
        for _ in range(3):
            _, back = server.recvfrom(10)
        server.sendto(b"answer", back)
        client.recvfrom(10, socket.MSG_PEEK)
        client.recvfrom(10)
        assert len(sink.opened) == 2
        assert sink.opened[0][:2] == (UDP, OUT) and sink.opened[0][4:6] == (LOCALHOST, port)
        assert sink.opened[1][:4] == (UDP, IN, LOCALHOST, port)
        assert sink.opened[0][3] == sink.opened[1][5] != 0
        assert sink.counted == {1: [6, 8, 4], 2: [8, 6, 4]}


def _raw(module, family, protocol):
    try:
        return module.socket(family, module.SOCK_RAW, protocol)
    except OSError:
        raise SkipTest("raw sockets need CAP_NET_RAW")


def _ping(host, family, protocol, connected):
    """Sends this host a request, takes it and its reply; returns the one flow that was seen."""
    with Tapped(flowtable.FlowTable()) as socket:
        sock = _raw(socket, family, protocol)
        there = socket.getaddrinfo(host, 0)[0][-1]
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if not connected:
            sock.bind(there)
        request = echo.request(protocol)
        if connected:
            sock.connect(there)
            assert sock.send(request) == 64
        else:
            assert sock.sendto(request, there) == 64
        for _ in range(2):  # the request itself comes too, as it is sent to ourselves
            assert poll.poll(2000)
            data = sock.recv(128) if connected else sock.recvfrom(128)[0]
            assert data[-56:] == request[-56:]
        assert sockets.errors == 0 and not sockets.listening()
        table = sockets.Socket._tap[5]
        snapshot = bytearray(table.snapshot_size())
        (flow,) = flowtable.unpack(snapshot[: table.drain(snapshot)])
        return flow


def test_each_icmp_message_is_a_hit():
    for connected in (False, True):
        flow = _ping("127.0.0.1", native.AF_INET, ICMP, connected)
        assert flow[:7] == (ICMP, OUT, 0, LOCALHOST, 0, LOCALHOST, 0), flow
        assert flow[7:10] == (128, 64, 3), flow
    flow = _ping("::1", native.AF_INET6, ICMP6, False)
    assert flow[:3] + flow[4:5] + flow[6:10] == (ICMP, OUT, 0, 0, 0, 128, 64, 3), flow


def test_icmp_can_be_left_to_others():
    sockets.include_icmp = False
    try:
        with Tapped(Sink()) as socket:
            assert not isinstance(_raw(socket, native.AF_INET, ICMP), sockets.Socket)
    finally:
        sockets.include_icmp = True


def test_an_address_in_a_buffer_that_is_written_to_again():
    sink = Sink()
    with Tapped(sink) as socket:
        ports = [closed_port(), closed_port() + 1]
        there = bytearray(address(ports[0]))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.sendto(b"a", there)
        there[:] = address(ports[1])
        client.sendto(b"bb", there)
        assert [flow[5] for flow in sink.opened] == ports


def test_a_datagram_socket_follows_the_peer_it_is_connected_to():
    sink = Sink()
    with Tapped(sink) as socket:
        servers = [native.socket(native.AF_INET, native.SOCK_DGRAM) for _ in range(2)]
        ports = [bound(server) for server in servers]
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port, data in ((ports[0], b"a"), (ports[1], b"bb"), (ports[0], b"cccc")):
            client.connect(address(port))
            client.send(data)
        assert [flow[5] for flow in sink.opened] == [ports[0], ports[1], ports[0]]
        assert [counts[1] for counts in sink.counted.values()] == [1, 2, 4]


def test_a_stale_token_opens_the_flow_again():
    sink = Sink()
    with Tapped(sink) as socket:
        client, server, port = pair(socket)
        client.send(b"1")
        client.write(b"2")
        first = sink.opened[0] if sink.opened[0][1] == OUT else sink.opened[1]
        sink.stale = set(sink.counted)  # a new cycle begins
        client.write(b"34")
        client.send(b"567")
        assert len(sink.opened) == 3 and sink.opened[2] == first
        assert sink.counted[3] == [0, 5, 2]


def test_a_refused_connection_is_seen_once_and_goes_on():
    sink = Sink()
    sink.full = True
    with Tapped(sink) as socket:
        client, server, _ = pair(socket)
        for _ in range(5):
            assert client.send(b"x") == 1
            assert server.recv(1) == b"x"
        assert len(sink.opened) == 2 and not sink.counted


def test_what_the_first_bytes_show():
    for data, port, name in (
        (b"GET / HTTP/1.1\r\n", 5000, "HTTP"),
        (b"DELETE / HTTP/1.1\r\n", 5000, "HTTP"),
        (b"HTTP/1.0 200 OK\r\n", 9000, "HTTP"),
        (b"EADDRESS", 5000, None),
        (b"GE", 5000, None),
        (b"\x16\x03\x01\x02\x00\x01", 443, "HTTPS"),
        (b"\x16\x03\x01\x02\x00\x01", 8883, "MQTT"),
        (b"\x16\x03\x01\x02\x00\x01", 23, "TLS"),
        (b"\x10\x10\x00\x04MQTT\x04\x02", 5000, "MQTT"),
        (b"\x10\x90\x01\x00\x04MQTT", 5000, "MQTT"),
        (b"SSH-2.0-x\r\n", 2222, "SSH"),
        (b"", 53, "DNS"),
        ("text", 23, "Telnet"),
        (b"\0\1", 5000, None),
    ):
        code = protocols.by_use(data, len(data), protocols.by_port(port))
        assert sockets.app_name(code) == name, (data, sockets.app_name(code))
        assert 0 <= code < 32


def test_every_port_has_a_name():
    for port, name in ((1883, "MQTT"), (5353, "mDNS"), (123, "NTP"), (67, "DHCP"), (5683, "CoAP")):
        assert sockets.app_name(protocols.by_port(port)) == name
    assert protocols.by_port(1) == 0
    for code in (0, 31, -1):
        assert sockets.app_name(code) is None


def test_the_first_bytes_are_looked_at_once_on_each_side():
    sink = Sink()
    with Tapped(sink) as socket:
        client, server, _ = pair(socket)
        buffer = bytearray(100)
        server.setblocking(False)
        assert server.readinto(buffer) is None
        client.write(b"POST / HTTP/1.0\r\n\r\n")
        client.write(b"SSH-2.0 is not looked at")
        server.readinto(buffer, 19)
        server.read(5)
        assert {sockets.app_name(app) for app in sink.apps.values()} == {"HTTP"}
        assert len(sink.apps) == 2


def test_own_sockets_are_native_unless_asked_for():
    with Tapped(Sink()) as socket:
        assert not isinstance(sockets.own_socket(), socket.socket)
        sockets.include_own = True
        assert isinstance(sockets.own_socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket)
        # What is not TCP or UDP over IP is native too.
        assert not isinstance(socket.socket(socket.AF_UNIX), socket.socket)


def test_names_are_remembered_by_address_and_bounded():
    with Tapped(Sink()) as socket:
        socket.getaddrinfo("localhost", 80)
        assert sockets.host_name(LOCALHOST) == "localhost"
        assert sockets.host_name(b"\x0a\0\0\1") is None
        for literal in ("127.0.0.1", "0.0.0.0"):
            socket.getaddrinfo(literal, 80)
        assert sockets.host_name(LOCALHOST) == "localhost"
        assert sockets.host_name(bytes(4)) is None
        for i in range(40):
            sockets._remember("host%d.example" % i, native.getaddrinfo("10.0.0.%d" % i, 80))
        assert sockets.host_name(bytes([10, 0, 0, 39])) == "host39.example"
        assert sockets.host_name(LOCALHOST) is None
        sockets._remember("n" * 100, native.getaddrinfo("10.0.0.39", 80))
        assert sockets.host_name(bytes([10, 0, 0, 39])) == "n" * 64
        assert sockets.host_name(bytes([10, 0, 0, 8])) == "host8.example"
    assert sockets.host_name(bytes([10, 0, 0, 39])) is None


def test_listening_sockets_are_told_until_they_close():
    with Tapped(Sink()) as socket:
        t = socket.socket()
        port = bound(t)
        assert sockets.listening() == []
        t.listen(1)
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for other in range(21000, 32000):
            try:
                u.bind(address(other, "0.0.0.0"))
                break
            except OSError:
                pass
        assert sockets.listening() == [(TCP, LOCALHOST, port), (UDP, None, other)]
        t.close()
        assert sockets.listening() == [(UDP, None, other)]
        u.close()
        many = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        ports = [bound(sock) for sock in many]
        assert [entry[2] for entry in sockets.listening()] == ports[4:]
        for sock in many:
            sock.close()
        assert sockets.listening() == []


class Broken:
    def open(self, *arguments):
        raise ValueError("the sink's")

    def count_in(self, token, size):
        return 0

    count_out = count_in
    set_app = open


def test_a_sink_that_raises_is_counted_and_not_felt():
    with Tapped(Broken()) as socket:
        client, server, _ = pair(socket)
        assert client.send(b"GET / ") == 6 and server.recv(4) == b"GET "
        assert client.write(b"x") == 1 and server.read(3) == b"/ x"
        buffer = bytearray(2)
        server.sendall(b"ab") if hasattr(server, "sendall") else server.write(b"ab")
        assert client.readinto(buffer) == 2 and buffer == b"ab"
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        port = bound(u)
        assert u.sendto(b"self", address(port)) == 4
        assert u.recvfrom(9)[0] == b"self"
        for sock in (client, server, u):
            sock.close()
        assert sockets.errors >= 8


def test_the_applications_own_errors_are_left_alone():
    sink = Sink()
    with Tapped(sink) as socket:
        client, server, _ = pair(socket)
        for call in (lambda: client.send(5), lambda: client.write(), lambda: client.read("x")):
            try:
                call()
                raise AssertionError("no error")
            except TypeError:
                pass

        def interrupt(*arguments):
            raise KeyboardInterrupt

        caught = None
        sink.set_app = interrupt
        try:
            client.write(b"GET / ")
        except KeyboardInterrupt as error:
            caught = error
        assert caught
        assert sockets.errors == 0


def test_installing_twice_is_refused_and_uninstalling_twice_is_not():
    before = {name: sys.modules.get(name) for name in ("socket", "usocket")}
    with Tapped(Sink()):
        try:
            sockets.install(Sink())
            raise AssertionError("installed twice")
        except RuntimeError as error:
            assert "uninstall" in str(error)
    sockets.uninstall()
    assert before == {name: sys.modules.get(name) for name in ("socket", "usocket")}


def test_after_uninstall_open_sockets_go_on_uncounted():
    sink = Sink()
    with Tapped(sink) as socket:
        client, server, _ = pair(socket)
        listener = socket.socket()
        port = bound(listener)
        listener.listen(1)
        client.send(b"1")
        server.recv(1)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there = address(bound(datagrams))
        datagrams.sendto(b"x", there)
        file = client.makefile("rwb")
    assert file.write(b"6") == 1 and server.read(1) == b"6"
    assert server.send(b"7\n") == 2 and file.readline() == b"7\n"
    counted, opened = str(sink.counted), len(sink.opened)
    other = Sink()
    with Tapped(other):
        assert client.send(b"23") == 2 and server.recv(2) == b"23"
        assert client.write(b"4") == 1 and server.read(1) == b"4"
        direct = native.socket()
        direct.connect(address(port))
        late = listener.accept()[0]
        assert late.send(b"5") == 1 and direct.recv(1) == b"5"
        assert datagrams.sendto(b"y", there) == 1
        client.close()
    assert str(sink.counted) == counted and len(sink.opened) == opened
    assert not other.opened and not other.counted and sockets.errors == 0
    assert not isinstance(socket.socket(), socket.socket)


def call_each(client, server, datagrams, there, out, into):
    client.send(out)
    server.readinto(into)
    server.write(out)
    client.readinto(into)
    datagrams.sendto(out, there)


def test_no_heap_for_a_call_on_a_known_flow():
    table = flowtable.FlowTable()
    with Tapped(table) as socket:
        client, server, _ = pair(socket)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there = address(bound(datagrams))
        out, into = b"x" * 64, bytearray(64)
        call_each(client, server, datagrams, there, out, into)
        call_each(client, server, datagrams, there, out, into)
        micropython.heap_lock()  # an allocation raises MemoryError from here on
        try:
            call_each(client, server, datagrams, there, out, into)
            call_each(client, server, datagrams, there, out, into)
        finally:
            micropython.heap_unlock()
    assert sockets.errors == 0


def test_what_returns_bytes_takes_no_more_heap_than_natively():
    def cost(receiver, sender, call):
        for _ in range(3):
            sender.send(b"x" * 64)
        call(receiver)
        call(receiver)
        before = gc.mem_alloc()
        call(receiver)
        return gc.mem_alloc() - before

    def datagrams(module):
        receiver = module.socket(module.AF_INET, module.SOCK_DGRAM)
        sender = native.socket(module.AF_INET, module.SOCK_DGRAM)
        sender.connect(address(bound(receiver)))
        return receiver, sender

    with Tapped(flowtable.FlowTable()) as socket:
        for make, call in (
            (pair, lambda sock: sock.recv(64)),
            (pair, lambda sock: sock.read(64)),
            (datagrams, lambda sock: sock.recvfrom(64)),
        ):
            costs = []
            for module in (native, socket):
                made = make(module)
                costs.append(cost(made[0], made[1], call))
            assert costs[1] <= costs[0], costs


def test_closed_and_forgotten_sockets_leave_nothing_behind():
    table = flowtable.FlowTable()
    with Tapped(table) as socket:

        def use(count):
            for _ in range(count):
                client, server, _ = pair(socket)
                client.send(b"x")
                server.recv(1)
                client.close()
                server.close()
            gc.collect()
            return gc.mem_alloc()

        use(3)
        before = use(3)
        assert use(60) - before < 512


def test_poll_sees_what_a_native_socket_shows():
    with Tapped(Sink()) as socket:
        client, server, _ = pair(socket)
        poll = select.poll()
        poll.register(server, select.POLLIN)
        assert poll.poll(0) == []
        client.send(b"x")
        assert poll.poll(1000) == [(server, select.POLLIN)]
        server.recv(1)
        client.close()
        assert poll.poll(1000)[0][1] & select.POLLIN
