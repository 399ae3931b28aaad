"""Makes what a board loads: `.mpy` files, and the ROMFS image that keeps them in flash.

Compiled code needs a quarter of the heap that sources need, and half of that again from ROMFS.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from vedette_tools import linker, rewriting, shortening, syntax
from vedette_tools.errors import CommandError
from vedette_tools.programs import installed

ROOT = Path(__file__).resolve().parents[2]
MPY_VERSION = 6
# What `sys.implementation._mpy >> 10` says, as mpy-cross names it (py/persistentcode.h).
ARCHITECTURES = (
    "", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp",
    "xtensa", "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip
WORDS_64 = ("x64", "rv64imc")
IMAGE_OBJECT = 64  # bytes of heap around the image
BOOT = """
import sys, vfs
with open(%r, "rb") as file:
    vfs.mount(vfs.VfsRom(file.read()), "/rom")
sys.path.insert(0, "/rom")
import main
"""
# The folders that stand at the root of a board's module path, and what in them is not for a board.
SOURCES = ("firmware", "lib", "build/umqtt")
NOT_FOR_BOARDS = ("manifest.py",)
# What looks at all of a Linux system: no board has it, a simulated one does not either.
LINUX_ONLY = (
    "vedette/baseline/debian.py",
    "vedette/collectors/process.py",
    "vedette/ports/connections.py",
    "vedette/ports/keep.py",
    "vedette/ports/linux_facts.py",
    "vedette/ports/listening.py",
    "vedette/ports/own.py",
    "vedette/ports/owners.py",
    "vedette/ports/packets.py",
    "vedette/ports/proc.py",
    "vedette/ports/process_events.py",
    "vedette/ports/process_watch.py",
    "vedette/ports/system.py",
    "vedette/ports/traffic.py",
)

# The port to a host: simulated boards load it, chips never do.
HOST_ONLY = (
    "nettap/linux.mpy",
    "nettap/netlink.mpy",
    "nettap/sock_diag.mpy",
    "nettap/unnamed.mpy",
    "vedette/ports/unix.mpy",
)
HOSTS = ("x86", "x64")


def architecture(micropython: Path) -> str:
    """The native architecture of an interpreter, as mpy-cross names it. Errors: CommandError."""
    code = "import sys; print(sys.implementation._mpy)"
    try:
        done = subprocess.run(
            [micropython, "-c", code], capture_output=True, text=True, timeout=10
        )
        number = int(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise CommandError(f"{micropython} is no MicroPython that can be run here") from None
    return architecture_named(number, str(micropython))


def architecture_named(number: int, who: str) -> str:
    """What `sys.implementation._mpy` stands for, as mpy-cross names it. Errors: CommandError."""
    if number & 0xFF != MPY_VERSION or number >> 10 & 0xF >= len(ARCHITECTURES):
        raise CommandError(
            f"{who} loads .mpy files of version {number & 0xFF}, not {MPY_VERSION}: "
            "use MicroPython 1.23 or newer"
        )
    return ARCHITECTURES[number >> 10 & 0xF]


def compiled(source: Path, march: str) -> bytes:
    """One file of an application, line numbers kept. Errors: CommandError as the compiler says."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "app.mpy"
        _compile(source, target, ["-s", source.name, *([f"-march={march}"] if march else [])])
        return target.read_bytes()


def sources() -> Iterator[tuple[Path, Path]]:
    """Each Python file for a board, with its path below the module path's root."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT / folder)
            if path.name not in NOT_FOR_BOARDS and relative.as_posix() not in LINUX_ONLY:
                yield path, relative


def compile_all(march: str, optimise: int = 3) -> Path:
    """Compile for one architecture into build/mpy/ARCHITECTURE, what changed only.

    Returns that folder. `optimise` as mpy-cross's -O: 3 leaves out assertions and line numbers.
    Errors: CommandError with the compiler's words.
    """
    with _alone():
        return _compile_all(march, optimise)


def romfs(march: str) -> Path:
    """The ROMFS image of all code for one architecture. Errors: CommandError."""
    with _alone():
        folder = _compile_all(march, 3)
        image, record = folder.with_suffix(".romfs"), folder.with_suffix(".json")
        if not image.exists() or image.stat().st_mtime_ns < record.stat().st_mtime_ns:
            image.write_bytes(image_of(folder))
        return image


def image_of(folder: Path) -> bytes:
    """The ROMFS image of a folder, made by mpremote."""
    from mpremote.romfs import make_romfs  # type: ignore[import-untyped]

    with contextlib.redirect_stdout(io.StringIO()):  # it prints the tree
        return bytes(make_romfs(str(folder), mpy_cross=False))


def simulated_board(program: Path, heap: str, board: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that run main.py as on a board, in the folder `board`.

    The code is in ROMFS. `heap` is the board's, as in "160k": where words have 64 bits the same
    objects take twice as much, and the image, which is flash on a board, is in the heap here.
    """
    march = architecture(program)
    image = romfs(march)
    number, unit = int(heap.rstrip("kKmM")), heap.lstrip("0123456789").lower()
    size = number * {"": 1, "k": 1 << 10, "m": 1 << 20}[unit]
    if march in WORDS_64:
        size *= 2
    size += image.stat().st_size + IMAGE_OBJECT
    command = [str(program), "-X", f"heapsize={size}", "-c", BOOT % str(image)]
    return command, {**os.environ, "MICROPYPATH": f"{board}:.frozen"}


@contextmanager
def _alone() -> Iterator[None]:
    folder = ROOT / "build" / "mpy"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile_all(march: str, optimise: int) -> Path:
    out = ROOT / "build" / "mpy" / (march or "bytecode")
    record = out.with_suffix(".json")  # what each file was made from
    known = json.loads(record.read_text()) if record.exists() else {}
    made = {}
    for path, text in _linked().items():
        target = (out / path).with_suffix(".mpy")
        key = hashlib.sha256(f"{_compiler_version()} -O{optimise} -s {text}".encode())
        made[str(target)] = key.hexdigest()
        if not target.exists() or known.get(str(target)) != key.hexdigest():
            # A traceback names the package, not the file: each name of a file costs heap.
            options = [f"-O{optimise}", "-s", path.partition("/")[0]]
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "linked.py")
                source.write_text(text)
                _compile(source, target, [*options, *([f"-march={march}"] if march else [])])
    for left_over in set(map(str, out.rglob("*.mpy"))) - set(made):
        Path(left_over).unlink()
    if made != known:
        record.write_text(json.dumps(made, indent=1))
    return out


def _linked() -> dict[str, str]:
    """The sources as they are linked, by path: again only where one changed, or the linker."""
    given = {relative.as_posix(): source.read_text() for source, relative in sources()}
    tools = [inspect.getsource(module) for module in (linker, rewriting, shortening, syntax)]
    key = hashlib.sha256(json.dumps([given, tools]).encode()).hexdigest()
    kept = ROOT / "build" / "mpy" / "linked.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if known.get("key") != key:
        known = {"key": key, "sources": linker.link(given)}
        kept.write_text(json.dumps(known))
    linked: dict[str, str] = known["sources"]
    return linked


def _compile(source: Path, target: Path, options: list[str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [str(installed("mpy-cross")), *options, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{source} does not compile: {done.stderr.strip()}")


@cache
def _compiler_version() -> str:
    done = subprocess.run(
        [installed("mpy-cross"), "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout
