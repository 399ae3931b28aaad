"""`vedette flash`: esptool as it is, against the ROM loader of a chip that is not there."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from romloader import CHIPS, RomLoader
from typer.testing import CliRunner
from vedette_tools.cli import build

OFFSETS = {"ESP32_GENERIC": 0x1000, "ESP32_GENERIC_S3": 0, "ESP32_GENERIC_C3": 0}
CHIP_OF = {"ESP32_GENERIC": "esp32", "ESP32_GENERIC_S3": "esp32s3", "ESP32_GENERIC_C3": "esp32c3"}


@pytest.fixture
def loader(request: pytest.FixtureRequest) -> Iterator[RomLoader]:
    chip = getattr(request, "param", "esp32")
    made = RomLoader(CHIPS[chip])
    yield made
    made.close()


def image(folder: Path, chip: str) -> Path:
    """A file that begins as an image for the chip; half of it can be compressed."""
    header = bytes([0xE9, 1, 2, 0x20]) + bytes(8) + CHIPS[chip].identity.to_bytes(2, "little")
    path = folder / "firmware.bin"
    path.write_bytes(header + bytes(20_000) + random.Random(1).randbytes(20_000))
    return path


def flash(*words: object, code: int) -> str:
    done = CliRunner().invoke(build(), ["flash", *map(str, words)], prog_name="vedette")
    assert done.exit_code == code, done.output
    return str(done.stderr if code else done.stdout)


@pytest.mark.parametrize(
    ("board", "loader"), CHIP_OF.items(), ids=CHIP_OF, indirect=["loader"]
)  # fmt: skip
def test_the_image_goes_to_its_offset(board: str, loader: RomLoader, tmp_path: Path) -> None:
    firmware = image(tmp_path, CHIP_OF[board])
    said = flash(board, firmware, "--port", loader.port, "--json", code=0)
    assert json.loads(said) == {"board": board, "port": str(loader.port), "state": "flashed"}
    data = firmware.read_bytes()
    at = OFFSETS[board]
    assert loader.flash[at : at + len(data)] == data
    assert {offset for offset, _ in loader.writes} == {at}
    assert loader.flash[:at] == b"\xff" * at


def test_an_image_for_another_chip_is_refused(loader: RomLoader, tmp_path: Path) -> None:
    firmware = image(tmp_path, "esp32s3")
    error = flash("ESP32_GENERIC", firmware, "--port", loader.port, code=4)
    assert "is for another chip" in error and "it is for esp32s3" in error
    assert "ESP32_GENERIC-*.bin" in error
    assert loader.writes == []


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["esp32s3"], indirect=True)
def test_a_board_with_another_chip_is_refused(loader: RomLoader, tmp_path: Path) -> None:
    firmware = image(tmp_path, "esp32")
    error = flash("ESP32_GENERIC", firmware, "--port", loader.port, code=4)
    assert "is no ESP32_GENERIC" in error and "ESP32-S3" in error
    assert loader.writes == []


@pytest.mark.slow
def test_a_cut_line_is_told(loader: RomLoader, tmp_path: Path) -> None:
    firmware = image(tmp_path, "esp32")
    loader.cut_after = 1
    error = flash("ESP32_GENERIC", firmware, "--port", loader.port, code=3)
    assert "was not flashed" in error and "next: " in error


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_image_is_refused(
    loader: RomLoader, tmp_path: Path, content: bytes | None
) -> None:
    firmware = tmp_path / "x.bin"
    if content is not None:
        firmware.write_bytes(content)
    error = flash("ESP32_GENERIC", firmware, "--port", loader.port, code=4)
    assert "https://micropython.org/download/ESP32_GENERIC/" in error


@pytest.mark.parametrize(
    ("board", "says"),
    [("NUCLEO_F767ZI", "dfu-util"), ("RPI_PICO_W", "BOOTSEL"), ("unix", "nothing to flash")],
)
def test_other_boards_are_flashed_by_hand(board: str, says: str) -> None:
    assert says in flash(board, code=0)
    report = json.loads(flash(board, "some.file", "--json", code=0))
    assert report["state"] == "by hand"
