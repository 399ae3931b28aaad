"""Runs device code on an emulated Cortex-M3: MicroPython's own port for QEMU.

MICROPYTHON_SOURCE names a MicroPython source tree (such as Debian's source package, unpacked);
qemu-system-arm and arm-none-eabi-gcc must be there. The firmware has neither network nor asyncio,
so it runs the flow table only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from measures import ROOT

BOARD = "MPS2_AN385"
TOOLS = ("qemu-system-arm", "arm-none-eabi-gcc")
LIMIT_S = 60
PIECE = 64  # bytes that the emulated UART takes at once


def missing() -> str:
    """What is missing to run this; "" when nothing is."""
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return ", ".join(absent)
    source = os.environ.get("MICROPYTHON_SOURCE", "")
    return "" if (Path(source) / "ports/qemu").is_dir() else "MICROPYTHON_SOURCE, a source tree"


def run(script: Path) -> dict[str, int]:
    """What the script prints as JSON. Errors: RuntimeError with the device's words."""
    firmware = build(Path(os.environ["MICROPYTHON_SOURCE"]))
    command = ["qemu-system-arm", "-machine", "mps2-an385", "-cpu", "cortex-m3", "-nographic"]
    command += ["-monitor", "null", "-semihosting", "-serial", "stdio", "-icount", "shift=0"]
    with subprocess.Popen(
        [*command, "-kernel", str(firmware)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            read_until(process, b">>> ")
            write(process, b"\x01")
            read_until(process, b"raw REPL; CTRL-B to exit\r\n>")
            write(process, script.read_bytes() + b"\x04")
            output, errors, _ = read_until(process, b"\x04>").split(b"\x04")
        finally:
            process.kill()
    if errors:
        raise RuntimeError(errors.decode())
    result: dict[str, int] = json.loads(output.removeprefix(b"OK"))
    return result


def build(source: Path) -> Path:
    """The firmware, with the flow table frozen into it."""
    manifest = ROOT / "build" / "cortex-m3-manifest.py"
    manifest.write_text(f'package("flowtable", base_path={str(ROOT / "lib")!r}, opt=3)\n')
    # Only manifests that require() need micropython-lib; the build asks for it in any case.
    library = source / "lib/micropython-lib"
    library.mkdir(exist_ok=True)
    (library / "README.md").touch()
    for folder, options in (
        ("mpy-cross", []),
        ("ports/qemu", [f"BOARD={BOARD}", f"FROZEN_MANIFEST={manifest}"]),
    ):
        command = ["make", "-s", "-j2", "-C", str(source / folder), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{folder} does not build: {done.stderr[-2000:]}")
    return source / f"ports/qemu/build-{BOARD}/firmware.elf"


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    for at in range(0, len(data), PIECE):
        process.stdin.write(data[at : at + PIECE])
        time.sleep(0.01)  # it has no flow control


def read_until(process: subprocess.Popen[bytes], end: bytes) -> bytes:
    assert process.stdout
    deadline = time.monotonic() + LIMIT_S
    seen = b""
    while not seen.endswith(end):
        byte = process.stdout.read(1)
        if not byte or time.monotonic() > deadline:
            raise RuntimeError(f"the emulated board said {seen!r}")
        seen += byte
    return seen
