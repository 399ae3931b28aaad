"""An agent alone on Linux, next to real programs: the hub gets what ps, ss and tcpdump say."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import pytest
from capture import Capture, Count, Ends
from conftest import LANES, ROOT, device_environment
from e2e.conftest import rows, settled
from e2e.test_methods import call
from hubfixture import Json, LocalHub, wait_for
from programs import http_server, name_server, ssh_server
from vedette_tools.expand import expand
from watcher import Watcher, network  # noqa: F401 - a fixture

HIGH = ("NetworkActivity", "Process", "ListeningPorts")
LOOK_S = 0.3  # a look at the hub is a connection too, and the table has an end
TWIN = {
    "CollectorsCore_PriorityIntervals": "0.05,1,1440",
    **{f"{name}_MessageFrequency": "High" for name in HIGH},
}


@pytest.fixture(scope="module", params=os.environ.get("VEDETTE_LANES", "64").split(","))
def micropython(request: pytest.FixtureRequest) -> Path:
    if not LANES[request.param].exists():
        pytest.skip(f"no {request.param}-bit MicroPython")
    return LANES[request.param]


@pytest.fixture(scope="module")
def folder(micropython: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("linux")


@pytest.fixture(scope="module")
def hub(
    network: None,  # noqa: F811
    folder: Path,
) -> Iterator[LocalHub]:
    hub = LocalHub(folder / "hub")
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def device(micropython: Path, folder: Path, hub: LocalHub) -> Iterator[str]:
    """main.py on the unix port, configured and connected."""
    device = "linux"
    (folder / "ca.der").write_bytes(ssl.PEM_cert_to_DER_cert(hub.ca.read_text()))
    config = {"connection_string": hub.create_device(device), "ca": "ca.der"}
    (folder / "config.json").write_text(json.dumps(config))
    hub.set_twin(device, {"microAgent": TWIN})
    process = subprocess.Popen(
        [micropython, ROOT / "firmware" / "main.py"], cwd=folder, env=device_environment()
    )
    settled(hub, device)
    yield device
    process.terminate()
    process.wait(20)


def seen(hub: LocalHub, device: str, name: str, **values: object) -> list[Json]:
    """The rows of that event that have these values."""
    time.sleep(LOOK_S)
    found = rows(hub.events(device), name)
    return [row for row in found if all(row[key] == value for key, value in values.items())]


def test_of_the_agents_own_connection_only_the_brokers_end_is_told(
    device: str, hub: LocalHub
) -> None:
    hub.kick(device)
    wait_for(lambda: flows(hub, device, local_port=hub.port), bool)
    assert not flows(hub, device, remote_port=hub.port)


# What each of these needs besides Python, whose HTTP and UDP servers are used.
NEEDED = {
    "http": ("curl",),
    "http6": ("curl",),
    "ssh": ("ssh", "sshd"),
    "dns": ("dig",),
    "ping": ("ping",),
}


def missing(*programs: str) -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [program for program in programs if not shutil.which(program, path=path)]


def need(*programs: str) -> None:
    if lacking := missing(*programs):
        pytest.skip(", ".join(lacking) + " not installed")


@dataclass
class Programs:
    """Real programs that have talked, those that are installed."""

    http: int  # process id of the server
    sshd: int
    ports: dict[str, int]  # of the servers
    processes: str  # what `ps` said while they ran; "": sshd lets nobody in
    captured: dict[Ends, Count] | None  # None: nothing may be captured here


def session(client: list[str], said: Path) -> str:
    """What `ps` says during a session that sends a file and runs something; "": no login."""
    command = [*client, "wc -c; sleep 0.87; true"]
    with said.open() as file, subprocess.Popen(command, stdin=file, stdout=PIPE) as ssh:
        assert ssh.stdout
        if ssh.stdout.readline() != b"%d\n" % said.stat().st_size:
            return ""
        processes: str = wait_for(
            lambda: output("ps", "-ww", "-eo", "pid=,ppid=,uid=,args="),
            lambda listed: " sleep 0.87\n" in listed,
        )
        assert ssh.wait(10) == 0
    return processes


def need_login(programs: Programs) -> None:
    need("ssh", "sshd", "ps")
    if not programs.processes:
        pytest.skip("sshd lets nobody in: root's needs CAP_SETUID, CAP_SETGID, CAP_SYS_CHROOT")


@pytest.fixture(scope="module")
def programs(device: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "page").write_bytes(b"x" * 300_000)
    with ExitStack() as stack:
        capture = None
        if not missing("tcpdump"):
            with suppress(PermissionError):
                capture = Capture(folder / "pcap")
                stack.callback(capture.close)
        http, port = stack.enter_context(http_server(folder, "127.0.0.1"))
        _, port6 = stack.enter_context(http_server(folder, "::1"))
        ports = {"http": port, "http6": port6, "dns": stack.enter_context(name_server())}
        if not missing("curl"):
            for host in (f"127.0.0.1:{port}", f"[::1]:{port6}"):
                output("curl", "-s", *[f"http://{host}/page"] * 2)
        if not missing("dig"):
            question = "dig", "@127.0.0.1", "-p", str(ports["dns"]), "+short", "a.example"
            assert [output(*question) for _ in range(2)] == ["192.0.2.1\n"] * 2
        if capture and not missing("ping"):
            for address in ("127.0.0.9", "::1"):
                output("ping", "-c", "3", "-i", "0.2", address)
        sshd, processes = 0, ""
        if not missing("ssh", "sshd", "ps"):
            sshd, ports["ssh"], client = stack.enter_context(ssh_server(folder))
            processes = session(client, folder / "page")
        yield Programs(http, sshd, ports, processes, capture.stop() if capture else None)


@pytest.mark.parametrize("name", NEEDED)
def test_the_hub_is_told_what_a_capture_has(
    device: str, hub: LocalHub, programs: Programs, name: str
) -> None:
    need(*NEEDED[name], "tcpdump")
    if programs.captured is None:
        pytest.skip("tcpdump may not capture here: it needs CAP_NET_RAW")
    if name == "ssh":
        need_login(programs)
    port = programs.ports.get(name, 0)

    def wanted(counts: dict[Ends, Count]) -> dict[Ends, Count]:
        return {
            ends: count
            for ends, count in counts.items()
            if port in (ends.local_port, ends.remote_port)
        }

    captured = wanted(programs.captured)
    assert len(captured) >= 2 and sum(count.bytes_in for count in captured.values()) > 100
    wait_for(lambda: whole(wanted(counted(hub, device))), lambda told: told == captured)


def test_the_hub_is_told_which_process_had_a_connection(
    device: str, hub: LocalHub, programs: Programs
) -> None:
    need("curl")
    port = programs.ports["http"]
    (name,) = output("ps", "-o", "comm=", "-p", str(programs.http)).splitlines()
    wait_for(lambda: owners(hub, device, port), lambda found: (programs.http, name) in found)


def whole(told: dict[Ends, Count]) -> dict[Ends, Count]:
    """With the byte that may be missing at one end of a TCP connection (docs/linux.md)."""
    found = dict(told)
    for ends, count in told.items():
        other = told.get(ends.reversed())
        if ends.protocol == "TCP" and other and count.bytes_in + 1 == other.bytes_out:
            if other.bytes_in == count.bytes_out:
                found[ends] = count._replace(bytes_in=other.bytes_out)
    return found


def test_the_hub_is_told_which_processes_ps_has(
    device: str, hub: LocalHub, programs: Programs
) -> None:
    need_login(programs)
    listed = {}
    for line in programs.processes.splitlines():
        pid, parent, user, command = line.split(None, 3)
        listed[int(pid)] = int(pid), int(parent), int(user), command
    parents = {row[0]: row[1] for row in listed.values()}
    ssh = next(pid for pid, row in listed.items() if row[3].startswith("ssh -F none"))
    session = {ssh} | {pid for pid in listed if programs.sshd in ancestors(parents, pid)}
    said = {listed[pid] for pid in session}
    assert "sleep 0.87" in {row[3] for row in said}
    renamed = {row for row in said if re.match(r"sshd(-\w+)?: ", row[3])}  # as it goes
    assert renamed

    def told() -> set[tuple[int, int, int, str]]:
        values = "process_id", "parent_process_id", "user_id", "commandline"
        rows = seen(hub, device, "ProcessCreate")
        return {tuple(row[key] for key in values) for row in rows}

    found = wait_for(told, lambda told: said - renamed <= told)
    assert {row[:3] for row in renamed} <= {row[:3] for row in found}


def test_the_hub_is_told_what_listens_as_ss_has_it(
    device: str, hub: LocalHub, programs: Programs
) -> None:
    need("ss")
    said = {}
    for line in output("ss", "-Htulnp").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        address = address.partition("%")[0].strip("[]").replace("*", "::")
        pids = {int(pid) for pid in re.findall(r"pid=(\d+)", line)}
        said[protocol.upper(), address, int(port)] = pids
    assert {
        ("TCP", "::1", programs.ports["http6"]),
        ("UDP", "127.0.0.1", programs.ports["dns"]),
    } <= set(said)

    def told() -> dict[tuple[str, str, int], int]:
        time.sleep(LOOK_S)
        events = [event for record in hub.events(device) for event in record["body"]["Events"]]
        latest = [event for event in events if event["Name"] == "ListeningPorts"][-1]
        return {
            (row["transport_protocol"], row["local_address"], row["local_port"]): row["process_id"]
            for row in expand(latest)["Payload"]
        }

    found = wait_for(told, lambda told: set(told) == set(said))
    assert {ends: pid for ends, pid in found.items() if pid not in (said[ends] or {None})} == {}


ALL = {
    "NetworkActivity": "ConnectionCreate",
    "Process": "ProcessCreate",
    **{name: name for name in ("SystemInformation", "Baseline", "ListeningPorts")},
    **{name: name for name in ("Heartbeat", "Statistics")},
}


def collected(hub: LocalHub, device: str) -> set[str]:
    """Collects now; returns the names of what the hub gets."""
    before = {event["Id"] for event in received(hub, device)}
    answer = call(hub, device, "collectNow")["payload"]["collected"]
    expected = {ALL[name] for name in answer}

    def came() -> set[str]:
        return {event["Name"] for event in received(hub, device) if event["Id"] not in before}

    return wait_for(came, lambda names: expected <= names) & set(ALL.values())


def received(hub: LocalHub, device: str) -> list[Json]:
    return [event for record in hub.events(device) for event in record["body"]["Events"]]


def configure(hub: LocalHub, device: str, **values: object) -> None:
    """Nothing is due for an hour: what comes is what was asked for."""
    never = {"CollectorsCore_PriorityIntervals": "60,60,1440"}
    hub.set_twin(device, {"microAgent": never | values})
    settled(hub, device)


def test_each_collector_is_turned_off_and_on_by_the_twin(device: str, hub: LocalHub) -> None:
    some, others = list(ALL)[::2], list(ALL)[1::2]
    for off, on in ((some, others), (others, some)):
        configure(
            hub,
            device,
            **{f"{name}_Disabled": True for name in off},
            **{f"{name}_Disabled": None for name in on},
        )
        with subprocess.Popen(["sleep", "0.3"]), socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(b"hello", ("127.0.0.1", 9))
        assert collected(hub, device) == {ALL[name] for name in on}


# What the twin may say in the platform's place.
CHOSEN = {
    "hardware_vendor": "HardwareVendor",
    "hardware_model": "HardwareModel",
    "hardware_serial_number": "HardwareSerialNumber",
    "firmware_vendor": "FirmwareVendor",
    "firmware_version": "FirmwareVersion",
}


def test_how_often_each_collector_sends_is_set_by_the_twin(device: str, hub: LocalHub) -> None:
    configure(hub, device, **{f"{name}_Disabled": None for name in ALL})
    collected(hub, device)
    before = {event["Id"] for event in received(hub, device)}
    often = {f"{name}_MessageFrequency": "High" for name in ALL}
    hub.set_twin(device, {"microAgent": often | {"CollectorsCore_PriorityIntervals": "0.05,1,1"}})

    def times() -> dict[str, int]:
        subprocess.run(["sleep", "0.2"], check=True)  # a process for each interval
        came = [event for event in received(hub, device) if event["Id"] not in before]
        # The first is what was collected until the change.
        return {
            name: sum(
                event["Name"] == name and event["IntervalSeconds"] in (3, 4) for event in came
            )
            for name in ALL.values()
        }

    wait_for(times, lambda counts: min(counts.values()) >= 2)


def test_how_often_processes_are_looked_for_is_set_by_the_twin(device: str, hub: LocalHub) -> None:
    with closing(Watcher(LANES["64"])) as watcher:
        events = watcher.sees["events"]  # the kernel tells: nothing is looked for
    for number, (interval, told) in enumerate([(60_000_000, events), (50_000, True)]):
        configure(hub, device, Process_PollingInterval=interval)
        subprocess.run(["sleep", f"0.70{number}"], check=True)
        before = len(rows(hub.events(device), "Heartbeat"))
        call(hub, device, "collectNow")
        # What is less urgent comes last.
        wait_for(lambda: len(rows(hub.events(device), "Heartbeat")), lambda n, b=before: n > b)
        assert bool(seen(hub, device, "ProcessCreate", commandline=f"sleep 0.70{number}")) == told


def test_what_collectors_do_is_set_by_the_twin(device: str, hub: LocalHub) -> None:
    groups = "Filesystem,Hardening,Banners,Services,Cron,Network,SSH,Sudo,Permissions"
    configure(
        hub,
        device,
        **{f"{name}_Disabled": None for name in ALL},
        NetworkActivity_CacheSize=16,
        Process_CacheSize=16,
        **{f"SystemInformation_{name}": f"my {name}" for name in CHOSEN.values()},
        Baseline_GroupsDisabled=groups,
        Baseline_ChecksDisabled="7.2.1",
        Message_Format="objects",
    )
    collected(hub, device)  # what was handed over before the change has come, too
    before = {event["Id"] for event in received(hub, device)}

    def complaints() -> set[str]:
        assert collected(hub, device) == set(ALL.values())
        return {row["key"] for row in rows(hub.events(device), "ConfigurationError")}

    with ExitStack() as stack:
        for number in range(20):
            stack.enter_context(subprocess.Popen(["sleep", f"0.5{number}"]))
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            udp.connect(("127.0.0.1", 9))
            udp.send(b"hello")
        time.sleep(0.5)
        wait_for(complaints, {"NetworkActivity_CacheSize", "Process_CacheSize"}.issubset)
    events = [event for event in received(hub, device) if event["Id"] not in before]
    assert all(isinstance(event["Payload"], list) for event in events)
    came = {name: [] for name in ALL.values()}
    for event in events:
        came.get(event["Name"], []).append(event["Payload"])
    assert max(map(len, came["ConnectionCreate"] + came["ProcessCreate"])) == 16
    for (row,) in came["SystemInformation"]:
        assert {key: row[key] for key in CHOSEN} == {k: f"my {name}" for k, name in CHOSEN.items()}
    failed = {row["check_id"].split("-")[3] for payload in came["Baseline"] for row in payload}
    assert failed <= {"Accounts"}
    results = call(hub, device, "getBaseline")["payload"]
    names = {check_id.split("-", 3)[3] for check_id, _, _ in results["rows"]}
    assert "Accounts-7.2.2" in names and "Accounts-7.2.1" not in names
    assert all(name.startswith("Accounts-") for name in names)


def test_the_agents_own_connection_is_told_where_the_twin_says_so(
    device: str, hub: LocalHub
) -> None:
    values = {"NetworkActivity_AgentTraffic": "Include", "NetworkActivity_CacheSize": None}
    hub.set_twin(device, {"microAgent": TWIN | values})
    wait_for(lambda: flows(hub, device, remote_port=hub.port), bool)


def ancestors(parents: dict[int, int], pid: int) -> set[int]:
    found = set()
    while pid in parents:
        pid = parents[pid]
        found.add(pid)
    return found


def counted(hub: LocalHub, device: str) -> dict[Ends, Count]:
    """What all flows of the same ends sum up to."""
    found: dict[Ends, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in flows(hub, device):
        ends = Ends(
            row["transport_protocol"],
            row["local_address"],
            row["local_port"] or 0,
            row["remote_address"],
            row["remote_port"] or 0,
        )
        hits = 0 if ends.protocol == "TCP" else row["hit_count"]
        for at, value in enumerate((row["bytes_in"], row["bytes_out"], hits)):
            found[ends][at] += value
    return {ends: Count(*sums) for ends, sums in found.items()}


def flows(hub: LocalHub, device: str, **values: object) -> list[Json]:
    return seen(hub, device, "ConnectionCreate", **values)


def owners(hub: LocalHub, device: str, port: int) -> set[tuple[int, str]]:
    """The processes that connections on this local port belong to."""
    time.sleep(LOOK_S)
    events = [event for record in hub.events(device) for event in record["body"]["Events"]]
    return {
        (owner["process_id"], owner["process_name"])
        for event in events
        for owner in expand(event).get("Processes", [])
        if owner["local_port"] == port
    }


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
