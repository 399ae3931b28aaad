"""One board on its serial line: what it is, and its files. The talking is mpremote's."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import struct
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import serial
from mpremote.transport import (  # type: ignore[import-untyped]
    TransportError,
    TransportExecError,
)
from mpremote.transport_serial import SerialTransport  # type: ignore[import-untyped]
from serial.tools import list_ports

from vedette_tools.errors import NO_BOARD, CommandError

BAUD = 115200
NVS = "vedette"  # the namespace in which the agent looks
NVS_MAX = 2560  # bytes that it reads of a secret; a private key of RSA 4096 takes 2,350
READ_S = 5
FIRST_S = 5  # for the first attempt to interrupt it
POLL_S = 0.1
CHUNK = 1536  # bytes of a file in one command

Progress = Callable[[int], None]

# What the board runs. A watchdog that is on stays on over a soft reset: it is fed here too.
ON_BOARD = """
import gc,hashlib,os,sys,time
from binascii import a2b_base64 as decode,hexlify
def feed():0
try:
 import json,machine
 with open('config.json') as f:s=json.load(f).get('watchdog')
 if s:feed=machine.WDT(timeout=s*1000).feed
except (OSError,ValueError,AttributeError,TypeError):pass
def digest(path):
 h=hashlib.sha256();b=bytearray(512);n=0
 with open(path,'rb') as f:
  while 1:
   k=f.readinto(b)
   if not k:return hexlify(h.digest()).decode(),n
   h.update(memoryview(b)[:k]);n+=k;feed()
def tree(folder):
 for e in os.ilistdir(folder):
  p=folder+'/'+e[0]
  if e[1]&0x4000:tree(p)
  else:print(*digest(p),p)
def prune(folder):
 for e in os.ilistdir(folder):
  p=folder+'/'+e[0]
  if e[1]&0x4000:prune(p)
  else:os.remove(p)
  feed()
 os.rmdir(folder)
def copy(a,b):
 t=bytearray(512)
 with open(a,'rb') as f,open(b,'wb') as g:
  while 1:
   k=f.readinto(t)
   if not k:break
   g.write(memoryview(t)[:k]);feed()
def make(path):
 for i,c in enumerate(path):
  if c=='/' and i:
   try:os.mkdir(path[:i])
   except OSError as e:
    if e.errno!=17:raise
def switch(a,b):
 try:os.rename(a,b)
 except OSError:
  os.remove(b);os.rename(a,b)
"""
FACTS = """
gc.collect()
s=os.statvfs('.')
t=int(time.time())+(946684800 if time.gmtime(0)[0]==2000 else 0)
print(repr((sys.platform,sys.implementation._machine,sys.version,getattr(sys.implementation,'_mpy',0),
gc.mem_free(),gc.mem_free()+gc.mem_alloc(),s[0]*s[3],s[1]*s[2],t)))
"""


@dataclass(frozen=True)
class Facts:
    """What a board says of itself. Sizes in bytes, `clock` in seconds since 1970."""

    platform: str
    machine: str
    version: str
    mpy: int
    heap_free: int
    heap: int
    flash_free: int
    flash: int
    clock: int


class LineCut(CommandError):
    """The board no longer answers."""


class BoardError(CommandError):
    """The board answered with an exception; `why` is its last line."""


def find_port(port: str | None) -> str:
    """The port that was named, else the only one there is. Errors: CommandError."""
    if port:
        return port
    found = sorted(each.device for each in list_ports.comports() if each.vid is not None)
    if len(found) == 1:
        return str(found[0])
    why = f"there are {', '.join(found)}" if found else "no USB serial port is there"
    raise CommandError(
        "it is not clear which port the board is on",
        why=why,
        next_step="name it: --port /dev/ttyUSB0, or VEDETTE_PORT"
        if found
        else "plug the board in; the cable has to carry data, not only power",
        code=NO_BOARD,
    )


def _not_opened(port: str) -> CommandError:
    if not Path(port).exists():
        why, next_step = "it is not there", "`vedette doctor` names the port that is"
    elif not os.access(port, os.R_OK | os.W_OK):
        why, next_step = "you may not use it", "join the device's group, and log in again"
    else:
        why, next_step = "another program has it", "close other terminals on it"
    return CommandError(f"{port} cannot be opened", why=why, next_step=next_step, code=NO_BOARD)


class BoardLink:
    """A board whose program was interrupted. A context: at its end the program starts again."""

    def __init__(self, port: str) -> None:
        self.port = port
        try:
            self._transport = SerialTransport(port, baudrate=BAUD, timeout=READ_S)
        except (TransportError, OSError):
            raise _not_opened(port) from None

    def __enter__(self) -> BoardLink:
        self.interrupt()
        return self

    def interrupt(self) -> None:
        """Interrupt the board's program; also after `start`."""
        with self._guarded("reset"):
            try:
                self._transport.enter_raw_repl(timeout_overall=FIRST_S)
            except TransportError:  # asyncio.wait_for can swallow a Ctrl-C
                self._transport.enter_raw_repl()
            self._transport.exec(ON_BOARD)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            if self._transport.in_raw_repl:
                self._restart()
            self._transport.close()

    def facts(self) -> Facts:
        return Facts(*ast.literal_eval(self.run(FACTS, "say what it is")))

    def run(self, code: str, task: str) -> str:
        """Run code on the board; returns what it printed. `task` is what an error says it did."""
        with self._guarded(task):
            return str(self._transport.exec(code).decode())

    def tree(self, folder: str) -> dict[str, tuple[str, int]]:
        """SHA-256 (hex) and size of each file below a folder, which need not be there."""
        code = f"try:tree({folder!r})\nexcept OSError as e:\n if e.errno!=2:raise\n"
        found = {}
        for line in self.run(code, f"read {folder}").splitlines():
            sha256, size, path = line.split(" ", 2)
            found[path] = (sha256, int(size))
        return found

    def digest(self, path: str) -> str | None:
        """SHA-256 (hex) of a file, None where there is none."""
        code = f"try:print(digest({path!r})[0])\nexcept OSError as e:\n if e.errno!=2:raise\n"
        return self.run(code, f"read {path}").strip() or None

    def read(self, path: str) -> bytes | None:
        """A small file, None where there is none."""
        code = (
            f"try:\n with open({path!r},'rb') as f:print(repr(f.read()))\n"
            "except OSError as e:\n if e.errno!=2:raise\n"
        )
        text = self.run(code, f"read {path}").strip()
        return bytes(ast.literal_eval(text)) if text else None

    def write(self, path: str, data: bytes, progress: Progress = lambda size: None) -> None:
        """Write a file, and make its folders."""
        self.run(f"make({path!r})\nf=open({path!r},'wb')", f"write {path}")
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self.run(f"f.write(decode({b64encode(piece)!r}));feed()", f"write {path}")
            progress(len(piece))
        self.run("f.close()", f"write {path}")

    def replace(self, path: str, data: bytes) -> None:
        """Write a file so that it is the old one or the new one; on FAT, for a moment, none."""
        self.write(path + ".new", data)
        self.run(f"switch({path + '.new'!r},{path!r})", f"write {path}")

    def copy(self, source: str, target: str) -> None:
        self.run(f"make({target!r})\ncopy({source!r},{target!r})", f"write {target}")

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; it need not be there."""
        code = (
            f"try:\n if os.stat({path!r})[0]&0x4000:prune({path!r})\n else:os.remove({path!r})\n"
            "except OSError as e:\n if e.errno!=2:raise\n"
        )
        self.run(code, f"remove {path}")

    def keep_secret(self, name: str, value: str | bytes) -> bool:
        """Put a secret where no file shows it: the NVS of an ESP32. False where there is none."""
        code = (
            "try:\n import esp32\nexcept ImportError:print(0)\n"
            f"else:\n n=esp32.NVS({NVS!r})\n n.set_blob({name!r},{value!r})\n n.commit();print(1)"
        )
        return self.run(code, f"keep {name}").strip() == "1"

    def start(self, timeout: float) -> Iterator[str]:
        """Start the board's own program, and yield the lines it says within `timeout` seconds."""
        with self._guarded("start"):
            self._restart()
        with contextlib.suppress(OSError):
            yield from read_lines(self._transport.serial, time.monotonic() + timeout)

    def _restart(self) -> None:
        self._transport.exit_raw_repl()
        self._transport.serial.write(b"\x04")  # a soft reset, which runs main.py

    @contextlib.contextmanager
    def _guarded(self, task: str) -> Iterator[None]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # mpremote prints what it then raises
                yield
        except TransportExecError as error:
            lines = error.error_output.strip().splitlines()
            why = lines[-1] if lines else "it did not say why"
            full = "ENOSPC" in why or why.endswith(": 28")
            raise BoardError(
                f"the board could not {task}",
                why="its file system is full" if full else why,
                next_step="remove files from it, or take a board with more flash" if full else "",
            ) from None
        except (TransportError, OSError, struct.error):
            raise LineCut(
                f"the board on {self.port} does not answer",
                why=f"the line was cut, or it was busy, when it was to {task}",
                next_step="look at the cable, reset the board, and type the command again",
                code=NO_BOARD,
            ) from None


def read_lines(line: serial.Serial, deadline: float) -> Iterator[str]:
    """What comes over a line until then (time.monotonic). Errors: OSError when it is cut."""
    line.timeout = POLL_S
    rest = b""
    while time.monotonic() < deadline:
        rest += line.read(max(1, line.in_waiting))
        *whole, rest = rest.split(b"\n")
        for each in whole:
            yield each.decode(errors="replace").rstrip("\r")
