"""Writes MicroPython itself onto a board: by esptool for Espressif's chips, else by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from vedette_tools.boards import Board
from vedette_tools.errors import INVALID, NO_BOARD, CommandError, reason
from vedette_tools.programs import run_shown

IMAGE_MAGIC = 0xE9  # esp_image_header_t; the chip's id is 16 bits at 12
CHIP_ID_AT = 12
HEADER_SIZE = 24
CHIP_IDS = {"esp32": 0, "esp32s2": 2, "esp32c3": 5, "esp32s3": 9, "esp32c2": 12, "esp32c6": 13}

BY_HAND = {
    "esptool": ("Type: vedette flash {board} {file}",),
    "dfu": (
        "Set the BOOT0 pin (on a Nucleo: a jumper from BOOT0 to VDD) and reset the board.",
        "Join its USB connector, not only the debugger's, with this computer.",
        "Type: dfu-util --alt 0 --download {file}",
        "Take the jumper off and reset the board.",
    ),
    "uf2": (
        "Hold the BOOTSEL button while you plug the board in: it shows up as a drive.",
        "Copy {file} onto that drive. The board restarts by itself.",
    ),
    "none": ("There is nothing to flash: MicroPython is a program here. See {url}",),
}


def steps(board: Board, firmware: Path | None) -> list[str]:
    """What a person does, where it is not esptool that does it all."""
    file = str(firmware or board.firmware)
    made = [
        step.format(board=board.name, file=file, url=board.url) for step in BY_HAND[board.method]
    ]
    return made if firmware or board.method == "none" else [f"Fetch it: {board.url}", *made]


def check_image(board: Board, firmware: Path) -> None:
    """Errors: CommandError for a file that is no image for this board's chip."""
    next_step = f"take {board.firmware} from {board.url}"
    try:
        with firmware.open("rb") as file:
            header = file.read(HEADER_SIZE)
    except OSError as error:
        raise CommandError(
            f"cannot read {firmware}", why=reason(error), next_step=next_step, code=INVALID
        ) from None
    if len(header) < HEADER_SIZE or header[0] != IMAGE_MAGIC:
        raise CommandError(
            f"{firmware} is no firmware for Espressif's chips", next_step=next_step, code=INVALID
        )
    found = int.from_bytes(header[CHIP_ID_AT : CHIP_ID_AT + 2], "little")
    if found != CHIP_IDS[board.chip]:
        names = {identity: name for name, identity in CHIP_IDS.items()}
        raise CommandError(
            f"{firmware} is for another chip",
            why=f"it is for {names.get(found, 'an unknown one')}, and {board.name} has "
            f"{board.chip}",
            next_step=next_step,
            code=INVALID,
        )


def flash(board: Board, firmware: Path, port: str, *, erase: bool) -> None:
    """Writes an image by esptool, which compares it afterwards. Errors: CommandError."""
    check_image(board, firmware)
    command = [sys.executable, "-m", "esptool", "--chip", board.chip, "--port", port]
    command += ["--after", "hard-reset", "write-flash", *(["--erase-all"] if erase else [])]
    command += [hex(board.flash_offset or 0), str(firmware)]
    done = run_shown(command)
    if done.returncode:
        raise _explained(board, port, done.stdout or "")


def _explained(board: Board, port: str, output: str) -> CommandError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if "rror" in line), "esptool gave up")
    if "Wrong chip argument" in output or "This chip is" in output:
        return CommandError(
            f"the board on {port} is no {board.name}",
            why=why,
            next_step="`vedette boards` lists the boards; name the right one with --board",
            code=INVALID,
        )
    return CommandError(
        f"the board on {port} was not flashed",
        why=why,
        next_step="hold its BOOT button while it connects, and type the command again",
        code=NO_BOARD,
    )
