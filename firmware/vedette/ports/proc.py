"""Linux processes, through proc(5). What is gone or not ours to read is None."""

import asyncio
import os

from micropython import const

KTHREADD = const(2)  # the parent of the kernel's own processes
COMMAND_MAX = const(512)  # bytes of a command line that are kept

_STAT_MAX = const(1024)
_THREAD = b"-1"  # the exit signal of what is not the first thread of its process
_FDS_MAX = const(4096)  # of one process
_TYPE = const(0xF000)  # S_IFMT and S_IFSOCK
_SOCKET = const(0xC000)
_SLICE = const(64)  # files looked at before the loop has its turn


def _read(path, size):
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def pids():
    """The ids of all processes that can be seen."""
    try:
        return [int(entry[0]) for entry in os.ilistdir("/proc") if entry[0].isdigit()]
    except OSError:
        return []


def last_pid():
    """The id that the kernel gave out last, to a process or a thread."""
    return int(_read("/proc/loadavg", 64).split()[-1])


def ticks():
    """The time since boot in clock ticks, of which there are 100 a second."""
    return int(_read("/proc/uptime", 64).split()[0].replace(b".", b""))


def command_line(pid, name=None):
    """The command line, its arguments parted by spaces; "" of what is gone.

    A zombie has none: it is its `name`, where that is known, in brackets, as ps shows it.
    """
    raw = _read("/proc/%d/cmdline" % pid, COMMAND_MAX).replace(b"\0", b" ").rstrip(b" ")
    if not raw and name:
        return "[%s]" % name
    try:
        return raw.decode()
    except UnicodeError:  # also where a character was cut
        return "".join([chr(c) if c < 0x80 else "?" for c in raw])


def user(pid):
    """The effective user id."""
    try:
        return os.stat("/proc/%d" % pid)[4]
    except OSError:
        return None


def process(pid):
    """Returns (parent's id, name, start in clock ticks since boot, whether it has ended), or None.

    None for threads too, which have ids like processes, and for the kernel's own processes.
    """
    before, _, after = _read("/proc/%d/stat" % pid, _STAT_MAX).rpartition(b") ")
    fields = after.split()
    if len(fields) < 36:
        return None
    parent = int(fields[1])
    if KTHREADD in (pid, parent) or fields[35] == _THREAD:
        return None
    name = before[before.find(b"(") + 1 :]
    name = "".join([chr(c) if 32 <= c < 0x7F else "?" for c in name])
    return parent, name, int(fields[19]), fields[0] == b"Z"


def name(pid):
    """The name that the kernel has for a process, 15 characters at most."""
    found = process(pid)
    return found[1] if found else None


def inodes(pid):
    """Yields the inodes of a process's open sockets, an id or "self", as far as we may see."""
    folder = "/proc/%s/fd" % pid
    try:
        for _, entry in zip(range(_FDS_MAX), os.ilistdir(folder)):
            try:
                status = os.stat(folder + "/" + entry[0])
                if status[0] & _TYPE == _SOCKET:  # a file may have the same number
                    yield status[1]
            except OSError:  # closed meanwhile, or a file that is gone
                pass
    except OSError:
        pass


async def owners(wanted):
    """Returns {inode: process id} of those inodes of `wanted` that a process has open."""
    found = {}
    wanted = set(wanted)
    for turn, (pid, inode) in enumerate(_all_inodes()):
        if inode in wanted:
            found[inode] = pid
        if turn % _SLICE == _SLICE - 1:
            await asyncio.sleep_ms(0)
    return found


def _all_inodes():
    for pid in pids():
        yield pid, None  # one whose files are not ours to see takes time as well
        for inode in inodes(pid):
            yield pid, inode
