"""What the agent says of a Linux system, against what the system's own tools say."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess

import pytest
from conftest import LANES, ROOT, device_environment
from hubfixture import Json

RENDER = ROOT / "tests/device/render_events.py"
LANES_WANTED = os.environ.get("VEDETTE_LANES", "64").split(",")
# A network of its own: a wire with several addresses, a modem's link to one peer, a tunnel.
INTERFACES = """
mount -t sysfs none /sys
ip link add eth7 type veth peer name ppp7
ip link add br7 type veth peer name eth8
ip tuntap add tun7 mode tun
ip addr add 192.0.2.7/24 dev eth7
ip addr add 198.51.100.7/24 dev eth7
ip addr add 2001:db8::7/64 dev eth7 nodad
ip addr add 192.0.2.1 peer 192.0.2.9 dev ppp7
ip addr add fe80::9/64 dev tun7 nodad
for name in eth7 ppp7 tun7 eth8; do ip link set $name up; done
ip -j addr
exec "$@"
"""


@pytest.fixture(params=LANES_WANTED)
def render(request: pytest.FixtureRequest) -> list[str]:
    program = LANES[request.param]
    if not program.exists():
        pytest.skip(f"no {request.param}-bit MicroPython")
    if not shutil.which("ip"):
        pytest.skip("ip not installed")
    return [str(program), "-X", "heapsize=16m", str(RENDER), "objects"]


def output(*command: str) -> list[str]:
    done = subprocess.run(command, env=device_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def information(message: str) -> Json:
    events = json.loads(message)["Events"]
    (row,) = next(e["Payload"] for e in events if e["Name"] == "SystemInformation")
    found: Json = row
    return found


def interfaces(listed: str) -> dict[str, tuple[str | None, str | None, str | None]]:
    """Hardware address, IPv4 and IPv6 address of each interface, as `ip -j addr` has them."""
    return {
        link["ifname"]: (
            link.get("address") if link["link_type"] == "ether" else None,
            first(link, "inet"),
            first(link, "inet6"),
        )
        for link in json.loads(listed)
        if link["ifname"] != "lo"
    }


def first(link: Json, family: str) -> str | None:
    found = [entry for entry in link["addr_info"] if entry["family"] == family]
    found.sort(key=lambda entry: entry["scope"] != "global")
    return found[0]["local"] if found else None


def told(row: Json) -> dict[str, tuple[str | None, str | None, str | None]]:
    return {
        nic["name"]: (nic["mac"], nic["ipv4_address"], nic["ipv6_address"]) for nic in row["nics"]
    }


def test_this_system_is_told_as_its_own_tools_have_it(render: list[str]) -> None:
    (message,) = output(*render)
    row = information(message)
    release = platform.freedesktop_os_release()
    assert row["os_name"] == release["NAME"]
    assert row["os_version"] == release.get("VERSION_ID", os.uname().release)
    assert (row["os_platform"], row["os_arch"]) == ("linux", os.uname().machine)
    status = os.statvfs(".")
    assert row["storage_total"] == status.f_blocks * status.f_frsize
    assert row["memory_total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/uptime") as file:
        assert 0 <= float(file.read().split()[0]) - row["uptime"] < 60
    there = interfaces(output("ip", "-j", "addr")[0])
    assert told(row) == {name: there[name] for name in sorted(there)[:8]}


def test_each_interface_is_told_with_its_addresses(render: list[str]) -> None:
    apart = ["unshare", "--net", "--mount", "sh", "-ec"]
    if subprocess.run([*apart, "mount -t sysfs none /sys"], capture_output=True).returncode:
        pytest.skip("a network of its own needs CAP_SYS_ADMIN")
    listed, message = output(*apart, INTERFACES, "sh", *render)
    row = information(message)
    assert told(row) == interfaces(listed)
    assert told(row)["ppp7"][1] == "192.0.2.1"
    assert told(row)["eth7"][1:] == ("192.0.2.7", "2001:db8::7")
    assert {nic["name"]: nic["type"] for nic in row["nics"]} == {
        "br7": "ETH",
        "eth7": "ETH",
        "eth8": "ETH",
        "ppp7": "MOBILE",
        "tun7": "UNKNOWN",
    }
