"""A version in the board's ROMFS partition: its code stays in flash, and takes no heap.

There is one partition. While it is written the board keeps the version in `v-a` or `v-b`, if it
has one; else it has none until the writing is done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from vedette_tools import mpy
from vedette_tools.board_link import BoardLink
from vedette_tools.errors import INVALID, NO_BOARD, CommandError
from vedette_tools.programs import installed, run_shown

FOLDER = "rom"
SIZE = """
import vfs
n=hasattr(vfs,'rom_ioctl') and vfs.rom_ioctl(1)
d=vfs.rom_ioctl(2,0) if n and n>0 else 0
print(d.ioctl(4,0)*d.ioctl(5,0) if hasattr(d,'ioctl') else 0 if isinstance(d,int) else len(d))
"""


def image(files: Mapping[str, bytes]) -> bytes:
    """A ROMFS image with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for path, data in files.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return mpy.image_of(Path(folder))


def check_room(link: BoardLink, made: bytes) -> None:
    """Errors: CommandError where the board has no partition, or a smaller one."""
    size = int(link.run(SIZE, "say how large its ROMFS is"))
    if size < len(made):
        raise CommandError(
            "the version does not fit into the board's ROMFS"
            if size
            else "the board has no ROMFS",
            why=f"{len(made)} bytes are needed, there are {size}"
            if size
            else "its firmware was built without a partition for it, as stock firmware is",
            next_step="deploy without --romfs, or take a firmware with a larger partition",
            code=INVALID,
        )


def write(port: str, made: bytes) -> None:
    """Writes the image, by mpremote. Errors: CommandError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.romfs")
        path.write_bytes(made)
        command = [str(installed("mpremote")), "connect", port, "resume"]
        command += ["romfs", "deploy", str(path)]
        done = run_shown(command)
    if done.returncode:
        lines = (done.stdout or "").strip().splitlines()
        raise CommandError(
            "the board's ROMFS was not written to its end",
            why=lines[-1] if lines else "mpremote gave up",
            next_step="deploy --romfs again: what is in it now cannot be used",
            code=NO_BOARD,
        )
