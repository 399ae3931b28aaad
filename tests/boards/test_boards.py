"""The boards as data."""

from __future__ import annotations

from pathlib import Path

import pytest
from vedette_tools import boards, mpy
from vedette_tools.errors import CommandError

GOOD = (boards.FOLDER / "ESP32_GENERIC" / "board.toml").read_text()
# What each says of itself on stock firmware: sys.platform, sys.implementation._machine.
SAID = {
    "ESP32_GENERIC": ("esp32", "Generic ESP32 module with ESP32"),
    "ESP32_GENERIC_S3": ("esp32", "Generic ESP32S3 module with ESP32S3"),
    "ESP32_GENERIC_C3": ("esp32", "ESP32C3 module with ESP32C3"),
    "NUCLEO_F767ZI": ("pyboard", "NUCLEO-F767ZI with STM32F767"),
    "NUCLEO_H743ZI": ("pyboard", "NUCLEO_H743ZI with STM32H743"),
    "RPI_PICO_W": ("rp2", "Raspberry Pi Pico W with RP2040"),
    "RPI_PICO2_W": ("rp2", "Raspberry Pi Pico 2 W with RP2350"),
    "unix": ("linux", "linux [GCC 14.2.1] version"),
}


@pytest.mark.parametrize("name", SAID)
def test_each_board_is_described_and_recognised(name: str) -> None:
    board = boards.load(name)
    assert boards.recognise(*SAID[name]) == board
    assert board.mpy_arch is None or board.mpy_arch in mpy.ARCHITECTURES
    assert (board.method == "esptool") == (board.flash_offset is not None)
    assert board.heap > board.heap_budget


def test_no_board_is_left_out() -> None:
    assert set(boards.names()) == set(SAID)


def test_a_variant_is_its_board() -> None:
    found = boards.recognise("esp32", "Generic ESP32 module with SPIRAM with ESP32")
    assert found and found.name == "ESP32_GENERIC"
    assert boards.recognise("esp32", "Some board with ESP32C6") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('chip = "esp32"', "chip = 5", "chip: 5 is not of type"),
        ('chip = "esp32"\n', "", "'chip' is a required property"),
        ("[features]", "colour = 1\n[features]", "colour"),
        ("offset = 0x1000", "offset = 0x1001", "firmware.offset"),
        ("offset = 0x1000\n", "", "'offset' is a required property"),
        ('method = "esptool"', 'method = "dfu"', "firmware: "),
        ('["wifi"]', '["radio"]', "interfaces.0"),
        ('"xtensawin"', '"z80"', "mpy_arch"),
        ("[features]", "[features", "Expected ']'"),
    ],
)
def test_a_wrong_description_is_refused(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(CommandError) as error:
        boards.parse("X", GOOD.replace(old, new), Path("boards/X/board.toml"))
    assert says in error.value.why and "boards/X/board.toml" in error.value.what


def test_what_a_board_cannot_have() -> None:
    pico = boards.load("RPI_PICO_W")
    config = {"watchdog": 9, "network": {"type": "ethernet"}}
    refused = pico.refusals(config, {"Process_CacheSize": 16, "Heartbeat_Disabled": True})
    assert set(refused) == {"watchdog", "network.type", "Process_CacheSize"}
    unix = boards.load("unix")
    assert unix.refusals({"watchdog": 60}, {"Process_CacheSize": 16}) == {}
