"""Each check of the Debian pack passes, fails and is an error, on prepared file systems.

The pack runs on the real MicroPython. One file system is as the benchmark wants it; for each check
a copy of it is spoiled in one thing, which no other check of its group may mind; in one nothing
can be read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from conftest import LANES, ROOT, device_environment  # noqa: E402
from debiantree import (  # noqa: E402
    MODES,
    MOUNTS,
    SYSCTLS,
    WANTS,
    Change,
    Tree,
    chmod,
    copied,
    enabled,
    hardened,
    installed,
    loadable,
    owned,
    remounted,
    removed,
    running,
    sshd,
    sysctl,
    text,
    unmounted,
    unreadable,
    user,
)

# What makes a check fail, and no other one: written from the benchmark, not from the pack.
FAILS: dict[str, Change] = {
    "1.1.1.1": loadable("cramfs"),
    "1.1.1.2": loadable("freevxfs"),
    "1.1.1.3": loadable("hfs"),
    "1.1.1.4": loadable("hfsplus"),
    "1.1.1.5": lambda tree: tree.write("/proc/modules", "jffs2 16384 0 - Live 0x0\n"),
    "1.1.1.9": loadable("usb-storage"),
    "1.1.2.1.1": unmounted("/tmp"),
    "1.1.2.1.2": remounted("/tmp", "nodev"),
    "1.1.2.1.3": remounted("/tmp", "nosuid"),
    "1.1.2.1.4": remounted("/tmp", "noexec"),
    "1.1.2.2.1": unmounted("/dev/shm"),
    "1.1.2.2.2": remounted("/dev/shm", "nodev"),
    "1.1.2.2.3": remounted("/dev/shm", "nosuid"),
    "1.1.2.2.4": remounted("/dev/shm", "noexec"),
    "1.1.2.3.2": remounted("/home", "nodev"),
    "1.1.2.3.3": remounted("/home", "nosuid"),
    "1.1.2.5.2": remounted("/var/tmp", "nodev"),
    "1.1.2.5.3": remounted("/var/tmp", "nosuid"),
    "1.1.2.5.4": remounted("/var/tmp", "noexec"),
    "1.3.1.1": removed("apparmor-utils"),
    "1.5.1": sysctl("kernel.randomize_va_space", "1"),
    "1.5.2": sysctl("kernel.yama.ptrace_scope", "0"),
    "1.5.3": text("/etc/security/limits.conf", "hard ", "soft "),
    "1.5.4": installed("prelink"),
    "1.6.4": chmod("/etc/motd", 0o666),
    "1.6.5": owned("/etc/issue", 1000, 0),
    "1.6.6": owned("/etc/issue.net", 0, 1000),
    "2.1.2": enabled("avahi-daemon", "avahi-daemon.socket"),
    "2.1.6": running("vsftpd", "vsftpd.service"),
    "2.1.9": enabled("nfs-kernel-server", "nfs-server.service"),
    "2.1.11": enabled("cups", "cups.service"),
    "2.1.12": enabled("rpcbind", "rpcbind.socket"),
    "2.1.13": enabled("rsync", "rsync.service"),
    "2.1.14": running("samba", "smbd.service"),
    "2.1.15": enabled("snmpd", "snmpd.service"),
    "2.1.16": enabled("tftpd-hpa", "tftpd-hpa.service"),
    "2.1.19": enabled("xinetd", "xinetd.service"),
    "2.2.1": installed("nis"),
    "2.2.2": installed("rsh-client"),
    "2.2.3": installed("talk"),
    "2.2.4": installed("inetutils-telnet"),
    "2.2.6": installed("tnftp"),
    "2.3.1.1": lambda tree: tree.write(WANTS + "chrony.service", ""),
    "2.4.1.2": chmod("/etc/crontab", 0o644),
    "2.4.1.3": chmod("/etc/cron.hourly", 0o755),
    "2.4.1.4": chmod("/etc/cron.daily", 0o710),
    "2.4.1.5": chmod("/etc/cron.weekly", 0o701),
    "2.4.1.6": chmod("/etc/cron.monthly", 0o1700),
    "2.4.1.7": owned("/etc/cron.d", 1, 0),
    "3.2.1": lambda tree: tree.path("/etc/modprobe.d/cis.conf").unlink(),
    "3.2.2": loadable("tipc"),
    "3.2.3": loadable("rds"),
    "3.2.4": loadable("sctp"),
    "3.3.1": sysctl("net.ipv6.conf.all.forwarding", "1"),
    "3.3.2": sysctl("net.ipv4.conf.default.send_redirects", "1"),
    "3.3.3": sysctl("net.ipv4.icmp_ignore_bogus_error_responses", "0"),
    "3.3.4": sysctl("net.ipv4.icmp_echo_ignore_broadcasts", "0"),
    "3.3.5": sysctl("net.ipv6.conf.default.accept_redirects", "1"),
    "3.3.6": sysctl("net.ipv4.conf.all.secure_redirects", "1"),
    "3.3.7": sysctl("net.ipv4.conf.all.rp_filter", "2"),
    "3.3.8": sysctl("net.ipv6.conf.all.accept_source_route", "1"),
    "3.3.9": sysctl("net.ipv4.conf.default.log_martians", "0"),
    "3.3.10": sysctl("net.ipv4.tcp_syncookies", "0"),
    "3.3.11": sysctl("net.ipv6.conf.default.accept_ra", "1"),
    "5.1.1": chmod("/etc/ssh/sshd_config", 0o644),
    "5.1.2": chmod("/etc/ssh/ssh_host_ed25519_key", 0o640),
    "5.1.3": chmod("/etc/ssh/ssh_host_rsa_key.pub", 0o664),
    "5.1.6": sshd("Ciphers aes256-ctr,aes256-cbc"),
    "5.1.7": sshd("ClientAliveInterval 0"),
    "5.1.8": sshd("DisableForwarding no"),
    "5.1.9": sshd("GSSAPIAuthentication yes"),
    "5.1.10": sshd("HostbasedAuthentication yes"),
    "5.1.11": sshd("IgnoreRhosts no"),
    "5.1.12": sshd("KexAlgorithms +diffie-hellman-group1-sha1"),
    "5.1.13": sshd("LoginGraceTime 2m"),
    "5.1.14": sshd("LogLevel QUIET"),
    "5.1.16": sshd("MaxAuthTries 5"),
    "5.1.17": sshd("MaxSessions 11"),
    "5.1.19": sshd("PermitEmptyPasswords yes"),
    "5.1.20": sshd("PermitRootLogin prohibit-password"),
    "5.1.21": sshd("PermitUserEnvironment yes"),
    "5.1.22": sshd("UsePAM no"),
    "5.2.1": removed("sudo"),
    "5.2.2": text("/etc/sudoers", "use_pty", "!use_pty"),
    "5.2.3": lambda tree: tree.path("/etc/sudoers.d/log").unlink(),
    "5.4.1.1": text("/etc/login.defs", "365", "366"),
    "5.4.2.1": text("/etc/passwd", "ann:x:1000:", "ann:x:0:"),
    "5.4.2.2": text("/etc/passwd", "ann:x:1000:1000", "ann:x:1000:0"),
    "7.1.1": chmod("/etc/passwd", 0o646),
    "7.1.2": chmod("/etc/passwd-", 0o755),
    "7.1.3": owned("/etc/group", 1000, 1000),
    "7.1.4": chmod("/etc/group-", 0o664),
    "7.1.5": chmod("/etc/shadow", 0o644),
    "7.1.6": owned("/etc/shadow-", 0, 1000),
    "7.1.7": chmod("/etc/gshadow", 0o660),
    "7.1.8": chmod("/etc/gshadow-", 0o644),
    "7.1.9": chmod("/etc/shells", 0o744),
    "7.1.10": lambda tree: tree.write("/etc/security/opasswd.old", ""),
    "7.2.1": text("/etc/passwd", "ann:x:", "ann:$y$j9T$salt$hash:"),
    "7.2.2": text("/etc/shadow", "ann:$y$j9T$salt$hash:", "ann::"),
    "7.2.3": user("bob:x:1001:1001::/home/bob:/bin/sh"),
    "7.2.5": user("bob:x:1000:1::/home/bob:/bin/sh"),
    "7.2.6": text("/etc/group", "ann:x:1000:", "ann:x:1000:\nbob:x:1000:"),
    "7.2.7": user("ann:x:1001:1::/home/bob:/bin/sh"),
    "7.2.8": text("/etc/group", "ann:x:1000:", "ann:x:1000:\nann:x:1001:"),
}
# These go with another: a user with root's id fails that ids are unique, too.
WITH = {"5.4.2.1": {"7.2.5"}, "5.2.1": set()}


Results = dict[str, tuple[str, str | None]]


def look(lane: str, folder: Path, trees: list[Tree]) -> list[Results]:
    """The results of the pack on each file system, by the number of the check."""
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    listing = folder / f"roots-{lane}.json"
    listing.write_text(json.dumps([[str(t.root), t.owners, t.settings] for t in trees]))
    done = subprocess.run(
        [str(LANES[lane]), str(TESTS / "device/debian_roots.py"), str(listing)],
        env=device_environment(), cwd=folder, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: list[list[list[Any]]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(trees)
    return [
        {name.rpartition("-")[2]: (result, error) for name, result, error in results}
        for results in found
    ]


@pytest.fixture(params=os.environ.get("VEDETTE_LANES", "64").split(","))
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_check_passes_fails_and_is_an_error(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    pack = (ROOT / "firmware/vedette/baseline/debian.py").read_text()
    groups = {number: group for group, number in re.findall(r"(?m)^(\w+)-([\d.]+)\|", pack)}
    trees = []
    for number, change in FAILS.items():
        tree = copied(base, tmp_path / number)
        change(tree)
        others = set(groups.values()) - {groups[number]}  # to save time
        tree.settings["Baseline_GroupsDisabled"] = ",".join(others)
        trees.append(tree)
    good, bad, *spoiled = look(lane, tmp_path, [base, unreadable(tmp_path / "bad"), *trees])
    assert {number: found for number, found in good.items() if found[0] != "Pass"} == {}
    assert set(good) == set(FAILS)
    assert {number for number, found in bad.items() if found[0] == "Error"} == set(FAILS)
    for number, results in zip(FAILS, spoiled, strict=True):
        wrong = {other: found[0] for other, found in results.items() if found[0] != "Pass"}
        expected = {number} | WITH.get(number, set())
        assert wrong == dict.fromkeys(expected, "Fail"), (number, wrong)
        assert results[number][1], number


def test_each_kernel_setting_counts(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    trees = []
    for item in SYSCTLS:
        tree = copied(base, tmp_path / item)
        sysctl(item.partition("=")[0], "7")(tree)
        trees.append(tree)
    for item, results in zip(SYSCTLS, look(lane, tmp_path, trees), strict=True):
        wrong = [found for found in results.values() if found[0] != "Pass"]
        assert wrong == [("Fail", item.partition("=")[0] + " is 7")]


def test_one_bit_more_is_too_much(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    for path, mode in MODES.items():
        base.chmod(path, mode | 0o001)
    (found,) = look(lane, tmp_path, [base])
    files = {number for number in FAILS if number.startswith(("1.6.", "2.4.", "7.1."))}
    files |= {"5.1.1", "5.1.2", "5.1.3"}
    assert {number for number in found if found[number][0] == "Fail"} == files


@pytest.mark.parametrize(
    ("number", "passes", "fails"),
    [
        ("5.1.6", ("aes256-ctr", "-aes128-cbc"), ("3des-cbc", "^aes192-cbc", "+aes128-cbc")),
        ("5.1.7", ("1", "15m", "900"), ("901", "1h")),
        ("5.1.12", ("curve25519-sha256",), ("diffie-hellman-group14-sha1",)),
        ("5.1.13", ("1", "60", "1M"), ("0", "61")),
        ("5.1.14", ("info", "VERBOSE"), ("ERROR",)),
        ("5.1.16", ("1", "4"), ("0", "5")),
        ("5.1.17", ("0", "10"), ("11",)),
    ],
)  # fmt: skip
def test_the_bounds_of_sshds_settings(
    lane: str, tmp_path: Path, number: str, passes: tuple[str, ...], fails: tuple[str, ...]
) -> None:
    base = hardened(tmp_path / "base")
    keyword = {"5.1.6": "Ciphers", "5.1.7": "ClientAliveInterval", "5.1.12": "KexAlgorithms",
               "5.1.13": "LoginGraceTime", "5.1.14": "LogLevel", "5.1.16": "MaxAuthTries",
               "5.1.17": "MaxSessions"}[number]  # fmt: skip
    trees = []
    for value in (*passes, *fails):
        tree = copied(base, tmp_path / str(len(trees)))
        sshd(f"{keyword} {value}")(tree)
        trees.append(tree)
    found = [results[number][0] for results in look(lane, tmp_path, trees)]
    assert found == ["Pass"] * len(passes) + ["Fail"] * len(fails)


def test_sshd_ends_no_session_where_it_asks_for_no_sign_of_life(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    sshd("ClientAliveInterval 15\nClientAliveCountMax 0")(base)
    (found,) = look(lane, tmp_path, [base])
    assert found["5.1.7"] == ("Fail", "ClientAliveCountMax is 0")


def test_what_sshd_does_by_default(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    base.write("/etc/ssh/sshd_config", "")
    (found,) = look(lane, tmp_path, [base])
    wrong = {number: text for number, (result, text) in found.items() if result == "Fail"}
    assert wrong == {
        "5.1.7": "ClientAliveInterval is 0",
        "5.1.8": "DisableForwarding is no",
        "5.1.13": "LoginGraceTime is 120",
        "5.1.16": "MaxAuthTries is 6",
        "5.1.20": "PermitRootLogin is prohibit-password",
        "5.1.22": "UsePAM is no",
    }


def test_what_does_not_concern_the_system_is_not_run(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    alpine = copied(base, tmp_path / "alpine")
    alpine.write("/etc/os-release", "ID=alpine\n")
    bare = copied(base, tmp_path / "bare")
    shutil.rmtree(bare.path("/etc/ssh"))
    shutil.rmtree(bare.path("/proc/sys/net/ipv6"))
    bare.replace(MOUNTS, "tmpfs /home ", "tmpfs /mnt ")
    removed("sudo")(bare)
    bare.path("/etc/cron.d").rmdir()
    none, found = look(lane, tmp_path, [alpine, bare])
    assert none == {}
    sshd = {number for number in FAILS if number.startswith("5.1.")}
    others = {"3.3.11", "1.1.2.3.2", "1.1.2.3.3", "5.2.2", "5.2.3", "2.4.1.7"}
    assert set(FAILS) - set(found) == sshd | others


def test_a_service_that_is_installed_but_off_passes(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    installed("rsync")(base)
    (found,) = look(lane, tmp_path, [base])
    assert found["2.1.13"] == ("Pass", None)


def test_groups_and_checks_are_disabled(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    base.settings = {
        "Baseline_GroupsDisabled": "SSH, Network",
        "Baseline_ChecksDisabled": "7.1.1,1.5.4",
    }
    (found,) = look(lane, tmp_path, [base])
    gone = {number for number in FAILS if number.startswith(("5.1.", "3."))} | {"7.1.1", "1.5.4"}
    assert set(FAILS) - set(found) == gone


def test_the_twin_adds_checks_and_changes_them(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    base.write("/etc/app.key", "secret")
    base.settings = {
        "Baseline_CustomChecks": "Network-3.3.1||sysctl 1 net.ipv4.ip_forward|A router forwards|\n"
        "App-9.1|High|file /etc/app.key 600|The key is private|chmod 600 /etc/app.key\n"
        "App-9.2||os /etc/shadow|No such function|\n"
        "App-9.3||_table shadow|No check|\n"
        "App-9.4||unique ../shadow 1|No table|\n"
        "App-9.5||unique shadow 1|Names only|",
    }
    (found,) = look(lane, tmp_path, [base])
    assert found["3.3.1"] == ("Fail", "net.ipv4.ip_forward is 0")
    assert found["9.1"] == ("Fail", "/etc/app.key is 644, of 0:0")
    assert found["9.2"] == ("Error", "there is no function check_os")
    assert found["9.3"][0] == found["9.4"][0] == "Error"
    assert found["9.5"] == ("Pass", None)
    assert "hash" not in str(found)


def told_sshd(base: Tree, folder: Path, texts: Iterable[str]) -> list[Tree]:
    """A copy of the tree for each text, which is among what its sshd reads first."""
    trees = []
    for number, content in enumerate(texts):
        tree = copied(base, folder / str(number))
        tree.write("/etc/ssh/sshd_config.d/a.conf", content)
        trees.append(tree)
    return trees


def test_sshd_reads_what_comes_first_and_not_what_is_for_some(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    texts = (
        "MaxAuthTries 4\nMaxAuthTries 9\n",
        "Match Address 10.0.0.0/8\nMaxAuthTries 9\n",
        'maxauthtries "4"\n',
        "Include /etc/ssh/sshd_config\n",  # which sshd refuses
    )
    trees = told_sshd(base, tmp_path, texts)
    found = [results["5.1.16"][0] for results in look(lane, tmp_path, trees)]
    assert found == ["Pass", "Pass", "Pass", "Error"]


def test_sshd_config_is_read_as_sshd_reads_it(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    texts = (
        "MaxAuthTries=9\n",
        "MaxAuthTries = 9\n",
        "Match User ann\nMaxAuthTries 4\nMatch all\nMaxAuthTries 9\n",
        "Include extra/*.conf\n",  # in /etc/ssh, whatever the folder of this file
        'Include "/etc/ssh/extra/b.conf"\n',
    )
    base.write("/etc/ssh/extra/b.conf", "MaxAuthTries 9\n")
    trees = told_sshd(base, tmp_path, texts)
    found = [results["5.1.16"] for results in look(lane, tmp_path, trees)]
    assert found == [("Fail", "MaxAuthTries is 9")] * len(texts)


def test_sudo_takes_the_last_word_from_the_files_it_reads(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    off = copied(base, tmp_path / "off")
    off.write("/etc/sudoers.d/off", "Defaults !use_pty\n")
    unread = copied(base, tmp_path / "unread")
    unread.path("/etc/sudoers.d/log").rename(unread.path("/etc/sudoers.d/log.bak"))
    unread.write("/etc/sudoers.d/log~", "Defaults logfile=/var/log/sudo.log\n")
    found = look(lane, tmp_path, [off, unread])
    assert found[0]["5.2.2"] == ("Fail", "use_pty is not set")
    assert found[1]["5.2.3"] == ("Fail", "logfile is not set")


def test_sshds_other_files_are_for_root_only_too(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    base.path("/etc/ssh/sshd_config.d/root.conf").chmod(0o646)
    (found,) = look(lane, tmp_path, [base])
    assert found["5.1.1"] == ("Fail", "/etc/ssh/sshd_config.d/root.conf is 646, of 0:0")


def test_what_was_set_before_login_defs_changed_counts(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    trees = []
    for days in ("99999", "", "366"):
        tree = copied(base, tmp_path / f"days{days}")
        tree.replace("/etc/shadow", ":19700:0:365:", f":19700:0:{days}:")
        trees.append(tree)
    found = [results["5.4.1.1"] for results in look(lane, tmp_path, trees)]
    assert found == [("Fail", "ann")] * len(trees)


def test_a_comment_behind_a_limit_does_not_count(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    base.write("/etc/security/limits.conf", "* hard core 0 # none\n")
    (found,) = look(lane, tmp_path, [base])
    assert found["1.5.3"] == ("Pass", None)


def test_ipv6_that_is_off_is_not_judged(lane: str, tmp_path: Path) -> None:
    base = hardened(tmp_path / "base")
    for key in ("all.accept_ra", "default.accept_ra", "all.accept_redirects"):
        sysctl(f"net.ipv6.conf.{key}", "1")(base)
    sysctl("net.ipv6.conf.all.disable_ipv6", "1")(base)
    half = copied(base, tmp_path / "half")
    sysctl("net.ipv6.conf.default.disable_ipv6", "0")(half)
    sysctl("net.ipv6.conf.default.disable_ipv6", "1")(base)
    found = look(lane, tmp_path, [base, half])
    assert "3.3.11" not in found[0] and found[0]["3.3.5"] == ("Pass", None)
    assert found[1]["3.3.11"][0] == found[1]["3.3.5"][0] == "Fail"


def test_this_machine_is_judged_as_its_own_tools_do(lane: str, tmp_path: Path) -> None:
    release = Path("/etc/os-release")
    if not (shutil.which("dpkg-query") and release.exists() and "debian" in release.read_text()):
        pytest.skip("this is no Debian")
    machine = Tree(Path("/"))
    machine.owners = None
    (found,) = look(lane, tmp_path, [machine])
    pack = (ROOT / "firmware/vedette/baseline/debian.py").read_text()
    judged = 0
    for number, call in re.findall(r"(?m)^\w+-([\d.]+)\|\w+\|(.*?)\|", pack):
        function, *words = call.split(" ")
        if function in ("installed", "absent"):
            listed = subprocess.run(
                ["dpkg-query", "-W", "-f", "${db:Status-Status} ", *words],
                capture_output=True,
                text=True,
            ).stdout.split()
            good = listed.count("installed") == (len(words) if function == "installed" else 0)
        elif function == "sysctl" and "?" not in call:
            paths = [Path("/proc/sys", key.replace(".", "/")) for key in words[1:]]
            if not all(path.exists() for path in paths):
                continue
            good = all(path.read_text().strip() in words[0].split(",") for path in paths)
        elif function == "file" and "*" not in call and Path(words[0].lstrip("?")).exists():
            status = Path(words[0].lstrip("?")).stat()
            groups = [int(group) for group in words[3].split(",")] if words[3:] else [0]
            good = not status.st_mode & 0o7777 & ~int(words[1], 8)
            good = good and status.st_uid == 0 and status.st_gid in groups
        else:
            continue
        judged += 1
        assert found[number][0] == ("Pass" if good else "Fail"), (number, found[number])
    assert judged > 20
