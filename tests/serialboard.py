"""A board on a serial line: the real MicroPython on a pseudo-terminal, in a folder for its flash.

It does what a board does and the unix port does not: it runs boot.py and main.py at start, and
comes back after a soft reset, in raw mode without main.py. The line can be cut and joined again.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import threading
import time
import tty
from pathlib import Path

RAW_REPL = b"raw REPL; CTRL-B to exit\r\n"
FRIENDLY_PROMPT = b">>> "
WAIT_S = 20
REST_S = 1  # a bound on the wait for a moment in which it does nothing
HOLD_S = 10  # a bound on how long the board may take to answer Ctrl-C

START = """
import sys
print(end=chr(0))
sys.path[:] = ["", ".frozen"]
%s
for _name in %r:
    try:
        with open(_name) as _file:
            _text = _file.read()
    except OSError:
        continue
    try:
        exec(_text)
    except SystemExit:
        break  # main.py ends so on Linux; on a board it only ends
    except BaseException as _error:
        sys.print_exception(_error, sys.stdout)
        break
"""

# A ROMFS partition, which the unix port has not: a file beside the flash.
ROM = """
import vfs as _vfs
class _Rom:
    VfsRom, mount, umount = _vfs.VfsRom, _vfs.mount, _vfs.umount
    @staticmethod
    def rom_ioctl(op, *args):
        with open("../rom", "r+b") as file:
            if op == 2:
                return bytearray(file.read())
            if op == 4:
                file.seek(args[1])
                file.write(args[2])
        return {1: 1, 3: 4, 4: 0, 5: 0, 6: 4096}[op]
sys.modules["vfs"] = _Rom
with open("../rom", "rb") as _file:
    _image = _file.read()
if _image[0] != 255:
    import os
    _vfs.mount(_vfs.VfsRom(_image), os.getcwd() + "/rom")  # a board's is in "/"
"""


def waits(pid: int) -> bool:
    """Whether a process waits for something, or has ended, as far as proc(5) is there to tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] in ("S", "Z")


class SerialBoard:
    def __init__(self, folder: Path, program: Path, port: Path) -> None:
        self.folder = folder
        self.port = port
        self.received = 0  # bytes that came from the host
        self._program = program
        self._outer = -1
        self._cut_at: int | None = None
        self._raw = False
        self._said = b""
        self._started = threading.Event()
        self._order_read, self._order_write = os.pipe()
        folder.mkdir(parents=True, exist_ok=True)
        self.plug()
        self._start(("boot.py", "main.py"))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut_after(self, size: int) -> None:
        """Cut the line once the host has sent so many bytes more."""
        self._cut_at = self.received + size

    @property
    def plugged(self) -> bool:
        return self._outer >= 0

    def plug(self) -> None:
        """Join the line again, under the same name, if it is cut; it will not be cut again."""
        self._cut_at = None
        if self.plugged:
            return
        outer, slave = pty.openpty()
        tty.setraw(slave)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(slave))
        # The slave stays open, else the master reports a hang-up before the host opens it.
        self._slave = slave
        self._outer = outer
        os.write(self._order_write, b"n")

    def unplug(self) -> None:
        """Take the line away; the board goes on."""
        os.write(self._order_write, b"u")

    def power_cycle(self) -> None:
        """Switch it off, whatever it does, and on again."""
        self._started.clear()
        os.write(self._order_write, b"p")
        assert self._started.wait(WAIT_S)

    def wait_for(self, text: str) -> list[str]:
        """The lines that it said since it last started, once one holds the text."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            lines = self._said.decode(errors="replace").splitlines()
            if any(text in line for line in lines):
                return lines
            time.sleep(0.02)
        raise AssertionError(f"not said within {WAIT_S} s: {text!r}, but {self._said!r}")

    def close(self) -> None:
        os.write(self._order_write, b"q")
        self._thread.join(10)
        self._kill()
        self._unplug()
        os.close(self._order_read)
        os.close(self._order_write)

    def _unplug(self) -> None:
        if self._outer >= 0:
            outer, self._outer = self._outer, -1
            os.close(self._slave)
            self.port.unlink(missing_ok=True)
            os.close(outer)  # last: the host sees it, and the line may be joined again

    def _start(self, files: tuple[str, ...]) -> None:
        self._inner, slave = pty.openpty()
        tty.setraw(slave)
        attributes = termios.tcgetattr(slave)
        attributes[3] |= termios.ISIG  # Ctrl-C reaches a running program
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        rom = self.folder.parent / "rom"
        self._process = subprocess.Popen(
            [
                self._program,
                "-X",
                "heapsize=2m",
                "-i",
                "-c",
                START % (ROM if rom.exists() else "", files),
            ],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        # From its first sign on, Ctrl-C interrupts it, and does not end it. On its way into the
        # REPL it throws away what is in its input: be there first.
        runs = "main.py" in files and (self.folder / "main.py").exists()
        said = self._until(b"\0" if runs else FRIENDLY_PROMPT)
        self._tell(said.partition(b"\0")[2])

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._inner)

    def _run(self) -> None:
        while True:
            watched = [self._inner, self._order_read]
            if self._outer >= 0:
                watched.append(self._outer)
            ready, _, _ = select.select(watched, [], [])
            order = os.read(self._order_read, 1) if self._order_read in ready else b""
            if order == b"q":
                return
            if order == b"u":
                self._unplug()
                continue
            if order == b"p":
                self._kill()
                self._raw = False
                self._said = b""
                self._start(("boot.py", "main.py"))
                self._started.set()
            elif self._inner in ready:
                self._from_board()
            if self._outer in ready:
                self._from_host()

    def _from_board(self) -> None:
        try:
            data = os.read(self._inner, 4096)
        except OSError:  # the process ended
            data = b""
        if data:
            self._tell(data)
        else:
            self._restart()

    def _restart(self) -> None:
        self._kill()
        self._said = b""
        self._tell(b"MPY: soft reboot\r\n")
        self._start(("boot.py",) if self._raw else ("boot.py", "main.py"))
        if self._raw:
            os.write(self._inner, b"\x01")
            said = self._until(RAW_REPL)
            self._tell(said[said.find(RAW_REPL) :])

    def _from_host(self) -> None:
        data = os.read(self._outer, 1024)
        self.received += len(data)
        if self._cut_at is not None and self.received >= self._cut_at:
            self._cut_at = None
            self._unplug()
            return
        for part in data.replace(b"\x03", b"\xff\x03\xff").split(b"\xff"):
            if part == b"\x03":
                self._interrupt()
            elif part:
                if b"\x01" in part or b"\x02" in part:
                    self._raw = part.rfind(b"\x01") > part.rfind(b"\x02")
                _write(self._inner, part)

    def _interrupt(self) -> None:
        # In the unix port, one that comes while garbage is collected leaves the heap locked. No
        # board does so.
        deadline = time.monotonic() + REST_S
        while not waits(self._process.pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        # The unix port throws away what is in its input when it enters its REPL: wait for that.
        os.write(self._inner, b"\x03")
        if not self._raw:
            said = self._until(FRIENDLY_PROMPT)
            if FRIENDLY_PROMPT not in said:  # it was about to start anew
                self._restart()
                os.write(self._inner, b"\x03")
                said = self._until(FRIENDLY_PROMPT)
            self._tell(said)

    def _until(self, ending: bytes) -> bytes:
        """What it says up to that; less, if it ends before, or does not say it in time."""
        said = b""
        while ending not in said:
            ready, _, _ = select.select([self._inner], [], [], HOLD_S)
            try:
                data = os.read(self._inner, 4096) if ready else b""
            except OSError:
                data = b""
            if not data:
                break
            said += data
        return said

    def _tell(self, data: bytes) -> None:
        self._said += data
        if self._outer >= 0:
            _write(self._outer, data)


def _write(file: int, data: bytes) -> None:
    """All of it: a pseudo-terminal takes some 4 KB at a time."""
    while data:
        data = data[os.write(file, data) :]
