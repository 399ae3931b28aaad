"""The collectors of processes and of listening ports, around a stand-in agent."""

import json

import flowtable
from harness import SkipTest
from nettap import sock_diag, sockets
from vedette import log, tap
from vedette.collectors import listening_ports, process
from vedette.ports import process_watch

log.level = 0
_HERE = bytes((10, 0, 0, 7))
_THERE = bytes((203, 0, 113, 9))


def _listen(port, waiting):
    import socket  # the tap's, once it is in

    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
    server.listen(waiting)
    return server


def _connect(port):
    import socket

    client = socket.socket()
    client.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
    return client


class Agent:
    """Takes events as long as there is room for them."""

    system = True
    objects = False

    def __init__(self, size=256, room=100):
        self.settings = {"Process_CacheSize": size, "Process_PollingInterval": 50000}
        self.since = {"Process": 0, "ListeningPorts": 0}
        self.counters = {"collections_deferred": 0}
        self.room = room
        self.events = []
        self.sizes = []
        self.complaints = []

    def add(self, name, pieces, seconds):
        text = "".join(pieces)
        if len(self.events) == self.room:
            return False
        event = json.loads("{" + text + "}")
        assert event["Name"] in ("ProcessCreate", "ListeningPorts")
        self.events.append(event)
        self.sizes.append(len(text.encode()))
        return True

    async def deliver(self, name, pieces, seconds):
        assert self.add(name, pieces, seconds)

    def complain(self, key, reason):
        self.complaints.append((key, reason))

    def rows(self):
        events, self.events = self.events, []
        return [
            dict(zip(event["Payload"]["columns"], row))
            for event in events
            for row in event["Payload"]["rows"]
        ]


class Watch:
    """Stands in for the watch on /proc: a test tells what it sees."""

    def __init__(self, seen, polling_ms):
        Watch.seen = seen
        Watch.polling_ms = polling_ms
        self.lost = 0

    async def run(self):
        pass

    def settle(self):
        pass

    def close(self):
        pass


class Own:
    blind = False

    async def look(self):
        pass


def _collector(agent):
    process_watch.start = Watch
    collector = process.Collector(agent)
    collector.start()
    return collector


async def test_equal_command_lines_of_a_user_are_one_row():
    agent = Agent()
    collector = _collector(agent)
    assert Watch.polling_ms == 50
    Watch.seen(7, 100, 1, "sh -c true", 0, "exec")
    Watch.seen(8, 101, 1, "sh -c true", 0, "fork")
    Watch.seen(9, 102, None, "sh -c true", 33, "exec")
    await collector.collect()
    first, second = agent.rows()
    assert (first["process_id"], first["parent_process_id"], first["hit_count"]) == (100, 1, 2)
    assert (first["commandline"], first["user_id"], first["type"]) == ("sh -c true", 0, "exec")
    assert (second["user_id"], second["hit_count"]) == (33, 1)
    assert second["parent_process_id"] is None
    assert len(first["timestamp"]) == 20 and first["timestamp"] < second["timestamp"]
    await collector.collect()
    assert agent.rows() == [] and agent.complaints == []


async def test_a_full_cache_lets_go_of_the_oldest_and_says_so():
    agent = Agent(size=16)
    collector = _collector(agent)
    for number in range(20):
        Watch.seen(number, number, 1, "command %d" % number, 0, "exec")
    Watch.seen(20, 99, 1, "command 19", 0, "exec")
    await collector.collect()
    rows = agent.rows()
    assert [row["process_id"] for row in rows] == list(range(4, 20))
    assert rows[-1]["hit_count"] == 2
    ((key, reason),) = agent.complaints
    assert key == "Process_CacheSize" and reason.startswith("4 processes gave way")


async def test_rows_without_room_wait_and_go_on_counting():
    agent = Agent(room=2)
    collector = _collector(agent)
    for number in range(256):
        Watch.seen(
            1, number, 1, "a rather long command line, with its number: %d" % number, 0, "exec"
        )
    await collector.collect()
    assert agent.counters["collections_deferred"] == 1
    rows = agent.rows()
    assert 20 < len(rows) < 256
    Watch.seen(2, 999, 1, "a rather long command line, with its number: 255", 0, "exec")
    agent.room = 100
    await collector.collect()
    rows += agent.rows()
    assert [row["process_id"] for row in rows] == list(range(256))
    assert [row["hit_count"] for row in rows] == [1] * 255 + [2]


async def test_no_event_is_larger_than_a_small_outbox():
    lines = ("true %d", '{"a":"%d"}' + '"' * 500, "\x01" * 500 + "%d", "\u4e2d" * 170 + "%d")
    for objects in (False, True):
        agent = Agent()
        agent.objects = objects
        collector = _collector(agent)
        for line in lines:
            for number in range(50):
                Watch.seen(100000, 4000000 + number, 4000000, line % number, 65534, "exec")
        await collector.collect()
        assert max(agent.sizes) < 6144 - 64, max(agent.sizes)


async def test_a_command_line_may_hold_anything():
    agent = Agent()
    collector = _collector(agent)
    line = 'x "quoted" \\ \n\t\x01 h\u00e9'
    Watch.seen(1, 1, 1, line, 0, "exec")
    await collector.collect()
    assert agent.rows()[0]["commandline"] == line


async def test_an_agent_that_watches_itself_only_has_no_processes():
    agent = Agent()
    agent.system = False
    try:
        process.Collector(agent)
        raise AssertionError("it was made")
    except ImportError:
        pass


async def test_a_board_tells_what_its_application_listens_on():
    tap.install()

    agent = Agent()
    agent.system = False
    collector = listening_ports.Collector(agent)
    await collector.collect()
    assert agent.events[0]["IsEmpty"] and agent.rows() == []
    tcp = _listen(0, 1)
    await collector.collect()
    (row,) = agent.rows()
    ((_, _, port),) = sockets.listening()
    assert row["transport_protocol"] == "TCP" and row["local_address"] == "127.0.0.1"
    assert row["local_port"] == port and row["process_id"] is row["process_name"] is None
    tcp.close()


async def test_a_whole_system_tells_the_process_that_listens():
    try:
        pid = int(open("/proc/self/stat").read().split()[0])
    except OSError:
        raise SkipTest("no /proc")
    import socket

    agent = Agent()
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(socket.getaddrinfo("::", 0)[0][-1])
    await listening_ports.Collector(agent).collect()
    mine = [row for row in agent.rows() if row["process_id"] == pid]
    udp.close()
    (row,) = mine
    assert row["transport_protocol"] == "UDP" and row["local_address"] == "::"
    assert row["local_port"] > 0 and row["process_name"]


class _Proc:
    """Stands in for ports.proc: process 11 takes up a program, 12 never has a command line."""

    KTHREADD = 2
    lines = {10: "sh", 12: "", 13: ""}

    def last_pid(self):
        return 13

    def ticks(self):
        return 5

    def user(self, pid):
        return 0

    def process(self, pid):
        return (10, "sleep", 5, pid == 13) if pid in self.lines else None

    def command_line(self, pid, name=None):
        return self.lines[pid] or (name and "[%s]" % name) or ""


async def test_a_command_line_that_is_not_there_yet_is_read_once_more():
    told = []
    real, process_watch.proc = process_watch.proc, _Proc()
    try:
        watch = process_watch._Polling(lambda *row: told.append((row[1], row[3])), 100)
        watch._last = 10
        process_watch.proc.lines[11] = ""
        await watch._look(13)
        assert told == [(13, "[sleep]")]  # it has ended: it gets none any more
        process_watch.proc.lines[11] = "sleep 5"
        await watch._look(13)
        await watch._look(13)
        assert sorted(told) == [(11, "sleep 5"), (12, "[sleep]"), (13, "[sleep]")]
    finally:
        process_watch.proc = real


async def test_a_program_that_is_taken_up_between_two_reads_is_told_by_its_own_line():
    class Taking(_Proc):
        lines = {10: "sh", 11: ""}
        reads = ["sh", "", "", "sleep 5"]  # of process 11: its parent's, none, its own

        def command_line(self, pid, name=None):
            if pid == 11:
                return (self.reads.pop(0) if len(self.reads) > 1 else self.reads[0]) or (
                    "[%s]" % name if name else ""
                )
            return super().command_line(pid, name)

    told = []
    real, process_watch.proc = process_watch.proc, Taking()
    try:
        watch = process_watch._Polling(lambda *row: told.append((row[1], row[3], row[5])), 100)
        watch._last = 10
        for _ in range(4):
            await watch._look(11)
        assert told == [(11, "sleep 5", "exec")], told
    finally:
        process_watch.proc = real


async def test_connections_that_are_over_are_not_looked_at():
    import asyncio
    import socket

    from vedette.ports import connections

    server = socket.socket()
    server.bind(socket.getaddrinfo("127.0.0.1", 20713)[0][-1])
    server.listen(1)
    client = socket.socket()
    client.connect(socket.getaddrinfo("127.0.0.1", 20713)[0][-1])
    accepted = server.accept()[0]
    for sock in (client, accepted, server):  # the end that closes first is in TIME_WAIT
        sock.close()
    await asyncio.sleep_ms(100)
    watched = connections.Connections(None, Own(), None)
    states = []
    watched._see = lambda protocol, data, at, end: states.append(data[at + 1])
    await watched.look()
    watched.close()
    assert 6 not in states, states


async def test_owners_of_a_port_that_serves_on_and_on_are_not_all_kept():
    from vedette.ports import owners

    class Clock:
        turns = 0

        async def sleep_ms(self, ms):
            self.turns += 1
            if self.turns == 2000:
                raise StopAsyncIteration
            watched.note(6, 443, self.turns)

    async def found(wanted):
        return {}

    before = owners.asyncio, owners.proc.owners
    watched = owners.Owners(Own())
    owners.asyncio, owners.proc.owners = Clock(), found
    try:
        await watched.run()
    except StopAsyncIteration:
        pass
    finally:
        owners.asyncio, owners.proc.owners = before
    assert len(watched._known) <= 1024, len(watched._known)


async def test_processes_whose_files_are_not_ours_to_see_give_the_loop_its_turn():
    from vedette.ports import proc

    class Turns:
        taken = 0

        async def sleep_ms(self, ms):
            Turns.taken += 1

    before = proc.asyncio, proc.pids
    proc.asyncio, proc.pids = Turns(), lambda: range(5_000_000, 5_001_000)
    try:
        assert await proc.owners([1]) == {}
    finally:
        proc.asyncio, proc.pids = before
    assert Turns.taken >= 10, Turns.taken


async def test_many_sockets_of_udp_give_the_loop_its_turn():
    import socket

    from vedette.ports import own

    class Turns:
        taken = 0

        async def sleep_ms(self, ms):
            Turns.taken += 1

    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
    for sock in sockets:
        sock.bind(socket.getaddrinfo("127.0.0.1", 0)[0][-1])
    mine = own.Own(flowtable.FlowTable())
    before, own.asyncio = own.asyncio, Turns()
    try:
        await mine.look()
    finally:
        own.asyncio = before
        for sock in sockets:
            sock.close()
    assert Turns.taken >= 3 and len(mine.udp) >= 200, (Turns.taken, len(mine.udp))


async def test_a_kernel_that_could_not_answer_once_is_asked_again():
    from vedette.ports import connections

    async def look():
        raise OSError(12)

    watched = connections.Connections(None, Own(), None)
    watched.close()
    watched.look = look
    watched._round = 2
    try:
        await watched.run()
    except OSError:
        return
    raise AssertionError("gave up")


async def test_a_file_with_the_inode_of_a_socket_is_not_taken_for_it():
    import os

    from vedette.ports import proc

    with open(__file__) as file:
        file.read(1)
        assert os.stat(__file__)[1] not in proc.inodes("self")


async def test_a_kernel_that_does_not_know_the_sockets_says_so():
    for protocol, family in ((200, sock_diag.INET), (sock_diag.TCP, 44)):
        try:
            found = list(sock_diag.sockets(protocol, family, 1))
            raise AssertionError("it has %d" % len(found))
        except OSError as error:
            assert error.errno, error


class _Hurry:
    """Stands in for asyncio: seconds go by in milliseconds."""

    async def sleep_ms(self, ms):
        import asyncio

        await asyncio.sleep_ms(ms // 100)


class _NoDiag:
    """Stands in for sock_diag of a kernel that knows no sockets of these protocols."""

    def __init__(self, *protocols):
        self.sockets = sock_diag.sockets
        self.protocols = protocols

    def __enter__(self):
        def sockets(protocol, *rest):
            if protocol in self.protocols:
                raise OSError(2)
            return self.sockets(protocol, *rest)

        sock_diag.sockets = sockets
        self.warnings = []
        self.warning, log.warning = log.warning, self.warnings.append
        return self

    def __exit__(self, *_):
        sock_diag.sockets = self.sockets
        log.warning = self.warning


class _Opened:
    """Stands in for the flow table: the ends of each connection that was opened."""

    def __init__(self):
        self.opened = []

    def open(self, protocol, way, laddr, lport, raddr, rport, app=0):
        self.opened.append((laddr, lport, raddr, rport))
        return 1

    def count_in(self, token, size):
        return 1

    count_out = count_in


class _Others(Own):
    """Nothing is own."""

    def __init__(self, table):
        self.open = table.open

    def has(self, inode, lport, remote):
        return False


class _Owners:
    def note(self, *what):
        pass


async def test_a_connection_among_many_tries_is_one():
    import socket

    from vedette.ports import connections

    table = _Opened()
    watched = connections.Connections(table, _Others(table), _Owners())
    await watched.look()
    server = _listen(20714, 1)
    client = _connect(20714)
    accepted, there = server.accept()
    here, port = socket.sockaddr(there)[1:3]
    watched.tried(here, port, here, 20714)
    for number in range(2000):
        watched.tried(_HERE, number, _THERE, 443)
    for _ in range(4):
        await watched.look()
    for sock in (client, accepted, server):
        sock.close()
    watched.close()
    assert table.opened.count((here, port, here, 20714)) == 1, table.opened


async def test_sockets_that_go_during_a_look_are_counted_once():
    import asyncio

    from vedette.ports import connections

    class Turn:
        """Stands in for asyncio: all sockets go in the first turn that a look gives the loop."""

        async def sleep_ms(self, ms):
            while ends:
                ends.pop().close()
            await asyncio.sleep_ms(20)

    ends = []
    table = _Opened()
    watched = connections.Connections(table, _Others(table), _Owners())
    if not watched._gone:
        raise SkipTest("the kernel does not tell us of sockets that go")
    await watched.look()
    server = _listen(20716, 40)
    for _ in range(40):
        client = _connect(20716)
        ends += [client, server.accept()[0]]
    gone = asyncio.create_task(watched.run_gone())
    connections.asyncio = Turn()
    await watched.look()
    connections.asyncio = asyncio
    server.close()
    gone.cancel()
    watched.close()
    opened = [flow for flow in table.opened if 20716 in flow]
    assert len(opened) == len(set(opened)) == 80, (len(opened), len(set(opened)))
    assert not [s for s in watched._sockets.values() if s[4] and 20716 in s[4]]


async def test_a_connection_from_before_that_goes_before_the_first_look_is_not_new():
    import asyncio

    from vedette.ports import connections

    server = _listen(20717, 1)
    client = _connect(20717)
    accepted = server.accept()[0]
    client.send(b"much")
    table = _Opened()
    watched = connections.Connections(table, _Others(table), _Owners())
    gone = asyncio.create_task(watched.run_gone())
    for sock in (client, accepted, server):
        sock.close()
    await asyncio.sleep_ms(50)
    await watched.look()
    gone.cancel()
    watched.close()
    assert not [flow for flow in table.opened if 20717 in flow], table.opened


async def test_without_sock_diag_that_is_said_once_and_own_flows_are_known():
    import asyncio

    from vedette.ports import connections, own

    table = flowtable.FlowTable()
    with _NoDiag(sock_diag.TCP, sock_diag.UDP) as kernel:
        mine = own.Own(table)
        watched = connections.Connections(table, mine, None)
        connections.asyncio = _Hurry()
        task = asyncio.create_task(watched.run())
        for number in range(300):  # more than are kept
            watched.tried(_HERE, number, _THERE, 443)
            table.open(flowtable.UDP, flowtable.OUT, _HERE, 5000 + number, _THERE, 53)
            if number % 50 == 49:
                await asyncio.sleep_ms(20)
        task.cancel()
        connections.asyncio = asyncio
        table.open(flowtable.UDP, flowtable.OUT, _HERE, 6000, _THERE, 53)
        watched.close()
        mine.close()
        assert mine.has_port(6000) and not watched._tries
        assert len(kernel.warnings) == 2, kernel.warnings


async def test_without_sockets_of_udp_those_of_tcp_are_seen():
    from vedette.ports import connections, own

    table = flowtable.FlowTable()
    with _NoDiag(sock_diag.UDP) as kernel:
        mine = own.Own(table)
        watched = connections.Connections(table, mine, _Owners())
        watched.udp = True
        for _ in range(3):
            await watched.look()
        watched.close()
        mine.close()
        assert watched._round == 3 and len(kernel.warnings) == 1, kernel.warnings
    await mine.look()
    assert not mine.blind


async def test_what_listens_is_known_without_sock_diag():
    import socket

    from vedette.ports import listening

    sockets = []
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.bind(socket.getaddrinfo(host, 0)[0][-1])
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
            sockets.append(sock)
    told = sorted(listening._bound())
    with _NoDiag(sock_diag.TCP, sock_diag.UDP):
        assert sorted(listening._bound()) == told and len(told) >= 4
    for sock in sockets:
        sock.close()
