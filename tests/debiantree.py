"""Debian file systems to look at: one as the benchmark wants it, and what spoils it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

RELEASE = "6.1.0-18-amd64"
DEP = f"/lib/modules/{RELEASE}/modules.dep"
MOUNTS = "/proc/self/mounts"
POINTS = ("/tmp", "/dev/shm", "/home", "/var/tmp")
OPTIONS = "rw,nosuid,nodev,noexec,relatime"
WANTS = "/etc/systemd/system/multi-user.target.wants/"
SYSCTLS = """
kernel.randomize_va_space=2 kernel.yama.ptrace_scope=1 fs.suid_dumpable=0
net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
net.ipv4.icmp_ignore_bogus_error_responses=1 net.ipv4.icmp_echo_ignore_broadcasts=1
net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.default.accept_redirects=0
net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.default.accept_redirects=0
net.ipv4.conf.all.secure_redirects=0 net.ipv4.conf.default.secure_redirects=0
net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
net.ipv4.conf.all.accept_source_route=0 net.ipv4.conf.default.accept_source_route=0
net.ipv6.conf.all.accept_source_route=0 net.ipv6.conf.default.accept_source_route=0
net.ipv4.conf.all.log_martians=1 net.ipv4.conf.default.log_martians=1
net.ipv4.tcp_syncookies=1
net.ipv6.conf.all.accept_ra=0 net.ipv6.conf.default.accept_ra=0
""".split()
MODES = {
    "/etc/motd": 0o644, "/etc/issue": 0o644, "/etc/issue.net": 0o644, "/etc/crontab": 0o600,
    "/etc/cron.hourly": 0o700, "/etc/cron.daily": 0o700, "/etc/cron.weekly": 0o700,
    "/etc/cron.monthly": 0o700, "/etc/cron.d": 0o700, "/etc/ssh/sshd_config": 0o600,
    "/etc/ssh/sshd_config.d/root.conf": 0o600,
    "/etc/ssh/ssh_host_rsa_key": 0o600, "/etc/ssh/ssh_host_ed25519_key": 0o600,
    "/etc/ssh/ssh_host_rsa_key.pub": 0o644, "/etc/ssh/ssh_host_ed25519_key.pub": 0o644,
    "/etc/passwd": 0o644, "/etc/passwd-": 0o600, "/etc/group": 0o644, "/etc/group-": 0o644,
    "/etc/shadow": 0o640, "/etc/shadow-": 0o640, "/etc/gshadow": 0o640, "/etc/gshadow-": 0o640,
    "/etc/shells": 0o644, "/etc/security/opasswd": 0o600,
}  # fmt: skip
FOLDERS = ("/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly",
           "/etc/cron.d", WANTS, "/sys/fs/cgroup/system.slice")  # fmt: skip
PASSWD = """root:x:0:0:root:/root:/bin/bash
sync:x:4:0:sync:/bin:/bin/sync
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
ann:x:1000:1000:Ann:/home/ann:/bin/bash
"""
SSHD = """# as the benchmark wants it
Include /etc/ssh/sshd_config.d/*.conf
Ciphers -3des-cbc,aes128-cbc
ClientAliveInterval 15
disableforwarding yes
GSSAPIAuthentication=no
LoginGraceTime 1m
MaxAuthTries 4
UsePAM yes
Match User ann
    PermitRootLogin yes
"""
CONTENT = {
    "/etc/os-release": 'ID=raspbian\nID_LIKE="ubuntu debian"\n',
    "/proc/modules": "nf_tables 278528 0 - Live 0x0000000000000000\n",
    "/proc/sys/kernel/osrelease": RELEASE + "\n",
    DEP: "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\nkernel/net/dccp/dccp.ko.xz:\n" * 35,
    "/etc/modprobe.d/cis.conf": "# none of these\ninstall dccp /usr/bin/false\n",
    MOUNTS: "".join(f"tmpfs {point} tmpfs {OPTIONS} 0 0\n" for point in POINTS),
    "/var/lib/dpkg/info/apparmor.md5sums": "",
    "/var/lib/dpkg/info/apparmor-utils.md5sums": "",
    "/var/lib/dpkg/info/sudo.md5sums": "",
    "/etc/security/limits.conf": "# limits\n*               hard    core            0\n",
    WANTS + "systemd-timesyncd.service": "",
    "/etc/ssh/sshd_config": SSHD,
    "/etc/ssh/sshd_config.d/root.conf": "PermitRootLogin no\n",
    "/etc/sudoers": "Defaults\tenv_reset, use_pty\nroot ALL=(ALL:ALL) ALL\n",
    "/etc/sudoers.d/log": 'Defaults logfile="/var/log/sudo.log"\n',
    "/etc/login.defs": "# PASS_MAX_DAYS 99999\nPASS_MAX_DAYS\t365\n",
    "/etc/passwd": PASSWD,
    "/etc/shadow": "root:*:19700:0:99999:7:::\nann:$y$j9T$salt$hash:19700:0:365:7:::\n",
    "/etc/group": "root:x:0:\ndaemon:x:1:\nann:x:1000:\n",
}  # fmt: skip
OWNERS = {"/etc/shadow": [0, 42], "/etc/shadow-": [0, 42], "/etc/gshadow": [0, 42]}


class Tree:
    """A file system in a folder of its own, with the owners of what is not root's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owners: dict[str, list[int]] | None = dict(OWNERS)
        self.settings: dict[str, str] = {}

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
        if path in MODES:
            target.chmod(MODES[path])

    def read(self, path: str) -> str:
        return self.path(path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text
        self.write(path, text.replace(old, new))

    def chmod(self, path: str, mode: int) -> None:
        if self.path(path).is_file():
            self.write(path, self.read(path))
        self.path(path).chmod(mode)


def hardened(root: Path) -> Tree:
    tree = Tree(root)
    for folder in FOLDERS:
        tree.path(folder).mkdir(parents=True)
    for path in MODES:
        if path in FOLDERS:
            tree.chmod(path, MODES[path])
        else:
            tree.write(path, "")
    for path, text in CONTENT.items():
        tree.write(path, text)
    for item in SYSCTLS:
        key, _, value = item.partition("=")
        tree.write("/proc/sys/" + key.replace(".", "/"), value + "\n")
    return tree


def unreadable(root: Path) -> Tree:
    """What each check needs first is a link to itself, which nobody can follow."""
    tree = hardened(root)
    sysctls = ["/proc/sys/" + item.partition("=")[0].replace(".", "/") for item in SYSCTLS]
    for path in [*CONTENT, *MODES, *sysctls, "/var/lib/dpkg/info", "/etc/systemd/system"]:
        if path == "/etc/os-release" or not tree.path(path).parent.is_dir():
            continue
        target = tree.path(path)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        target.symlink_to(target.name)
    return tree


def copied(base: Tree, root: Path) -> Tree:
    """The same files, by hard links: a change replaces a file, and never writes into it."""
    for folder, _, files in os.walk(base.root):
        target = root / Path(folder).relative_to(base.root)
        target.mkdir(mode=Path(folder).stat().st_mode & 0o7777)
        for name in files:
            os.link(Path(folder) / name, target / name)
    return Tree(root)


Change = Callable[[Tree], object]


def loadable(name: str) -> Change:
    return lambda tree: tree.write(DEP, tree.read(DEP) + f"kernel/x/{name}.ko.xz:\n")


def remounted(point: str, option: str) -> Change:
    line = f"tmpfs {point} tmpfs {OPTIONS}"
    return lambda tree: tree.replace(MOUNTS, line, line.replace("," + option, ""))


def unmounted(point: str) -> Change:
    return lambda tree: tree.replace(MOUNTS, f"tmpfs {point} ", "tmpfs /mnt ")


def sysctl(key: str, value: str) -> Change:
    return lambda tree: tree.write("/proc/sys/" + key.replace(".", "/"), value + "\n")


def chmod(path: str, mode: int) -> Change:
    return lambda tree: tree.chmod(path, mode)


def owned(path: str, user: int, group: int) -> Change:
    return lambda tree: tree.owners.update({path: [user, group]})


def installed(package: str) -> Change:
    return lambda tree: tree.write(f"/var/lib/dpkg/info/{package}.md5sums", "")


def removed(package: str) -> Change:
    return lambda tree: tree.path(f"/var/lib/dpkg/info/{package}.md5sums").unlink()


def enabled(package: str, unit: str) -> Change:
    def change(tree: Tree) -> None:
        installed(package)(tree)
        tree.write(WANTS + unit, "")

    return change


def running(package: str, unit: str) -> Change:
    def change(tree: Tree) -> None:
        installed(package)(tree)
        tree.path(f"/sys/fs/cgroup/system.slice/{unit}").mkdir()

    return change


def sshd(line: str) -> Change:
    """The folder's file is read before the rest of sshd_config, and what comes first holds."""
    return lambda tree: tree.write(
        "/etc/ssh/sshd_config.d/root.conf", line + "\nPermitRootLogin no\n"
    )


def text(path: str, old: str, new: str) -> Change:
    return lambda tree: tree.replace(path, old, new)


def user(line: str) -> Change:
    return lambda tree: tree.write("/etc/passwd", PASSWD + line + "\n")
