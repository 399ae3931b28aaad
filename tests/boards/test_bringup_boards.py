"""What the agent says of each board, from what the board's own modules return.

No board is at hand: the values are what MicroPython 1.26 returns on them, by its source and by
what people have posted (github.com/micropython/micropython/issues/15119 has names and `_mpy` of
several); most serial numbers and hardware addresses are made up in the form of real ones.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from functools import cache
from typing import Any

import pytest
from conftest import LANES, ROOT, device_environment
from jsonschema import Draft202012Validator

SECRET = "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0"
ESP32_CAUSES = {
    "PWRON_RESET": 1, "HARD_RESET": 2, "WDT_RESET": 3, "DEEPSLEEP_RESET": 4, "SOFT_RESET": 5,
}  # fmt: skip
STM32_CAUSES = {
    "SOFT_RESET": 0, "PWRON_RESET": 1, "HARD_RESET": 2, "WDT_RESET": 3, "DEEPSLEEP_RESET": 4,
}  # fmt: skip
RP2_CAUSES = {"PWRON_RESET": 1, "WDT_RESET": 3}
ESP32_CLASSES = {"WLAN": ["STA_IF", "AP_IF"], "LAN": [None], "PPP": [None]}
DOWN = {"active": False}
NIC = ("type", "name", "mac", "ipv4_address", "ipv6_address")
ID = "00000000-0000-4000-8000-000000000000"
VALIDATOR = Draft202012Validator(
    json.loads((ROOT / "tools/vedette_tools/schema/message.json").read_text())
)


def address(mac: str, ipv4: str, **more: object) -> dict[str, Any]:
    """An interface in use, with its addresses."""
    ifconfig = [ipv4, "255.255.255.0", "192.168.4.1", "192.168.4.1"]
    return {"active": True, "mac": mac, "ifconfig": ifconfig, **more}


def esp32(unique_id: str, mhz: int, blocks: int, **network: object) -> dict[str, Any]:
    return {
        "unique_id": unique_id,
        "freq": mhz * 1_000_000,
        "causes": ESP32_CAUSES,
        "mem16": {},
        "watchdog_ms": 2**31 - 1,
        "mounts": [["/", "VfsLfs2"]],
        "cwd": "/",
        "statvfs": {".": [4096, 4096, blocks, blocks - 2, blocks - 2, 0, 0, 0, 0, 255]},
        "network": {"classes": ESP32_CLASSES, **network},
        "nvs": {"vedette": {"connection": SECRET}},
        "banner": "3.4.0; MicroPython v1.26.1 on 2025-09-11",
    }


def stm32(unique_id: str, clocks: list[int], sectors: int, flash: str) -> dict[str, Any]:
    """`flash`: the address of the register that has its size in KB."""
    return {
        "unique_id": unique_id,
        "freq": clocks,
        "causes": STM32_CAUSES,
        "mem16": {flash: 2048},
        "watchdog_ms": 32768,
        "mounts": [["/flash", "VfsFat"], ["/rom", "VfsRom"]],
        "cwd": "/flash",
        "statvfs": {".": [512, 512, sectors, sectors - 4, sectors - 4, 0, 0, 0, 0, 255]},
        "network": {
            "classes": {"LAN": ["LAN"], "PPP": [None]},
            "LAN": address("02:24:31:38:32:33", "192.168.4.20"),
        },
        "banner": "3.4.0; MicroPython v1.26.1 on 2025-09-11",
    }


def rp2(unique_id: str, mhz: int, blocks: int) -> dict[str, Any]:
    addresses = [["FE80::2ACD:C1FF:FE0A:1B2C", 0x30, 0, 0], ["2001:DB8::2A", 0x30, 900, 900]]
    return {
        "unique_id": unique_id,
        "freq": mhz * 1_000_000,
        "causes": RP2_CAUSES,
        "mem16": {},
        "watchdog_ms": 8388,
        "mounts": [["/", "VfsLfs2"], ["/rom", "VfsRom"]],
        "cwd": "/",
        "statvfs": {".": [4096, 4096, blocks, blocks - 2, blocks - 2, 0, 0, 0, 0, 255]},
        "network": {
            "classes": {"WLAN": ["STA_IF", "AP_IF"], "PPP": [None]},
            "STA_IF": address("28:cd:c1:0a:1b:2c", "192.168.4.30", addr6=addresses),
            "AP_IF": DOWN,
        },
        "banner": "3.4.0; MicroPython v1.26.1 on 2025-09-11 (GNU 14.2.0 MinSizeRel)",
    }


# What the modules return, and of it what no rule derives.
BOARDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ESP32_GENERIC": (
        esp32(
            "240ac4001110", 160, 512,
            STA_IF=address("24:0a:c4:00:11:10", "192.168.4.7"), AP_IF=DOWN,
        ) | {"mpy": 10758, "flash_size": 4 << 20},
        {
            "maker": "Espressif",
            "nics": [["WIFI", "STA_IF", "24:0a:c4:00:11:10", "192.168.4.7", None]],
        },
    ),
    "ESP32_GENERIC_S3": (
        esp32(
            "7cdfa1e3f2a4", 160, 1536,
            STA_IF=DOWN, AP_IF=address("7c:df:a1:e3:f2:a5", "192.168.4.1"),
        ) | {"mpy": 11014, "flash_size": 8 << 20},
        {
            "maker": "Espressif",
            "nics": [["WIFI", "AP_IF", "7c:df:a1:e3:f2:a5", "192.168.4.1", None]],
        },
    ),
    "ESP32_GENERIC_C3": (
        esp32(
            "a0764e5b9c10", 160, 512,
            STA_IF=address("a0:76:4e:5b:9c:10", "0.0.0.0"),
            AP_IF=address("a0:76:4e:5b:9c:11", "192.168.4.1"),
        ) | {"mpy": 12038, "flash_size": 4 << 20},
        {
            "maker": "Espressif",
            "nics": [
                ["WIFI", "STA_IF", "a0:76:4e:5b:9c:10", None, None],
                ["WIFI", "AP_IF", "a0:76:4e:5b:9c:11", "192.168.4.1", None],
            ],
        },
    ),
    "NUCLEO_F767ZI": (
        stm32(
            "310032001151353233353939",
            [216000000, 216000000, 54000000, 108000000], 192, "1ff0f442",
        ) | {"mpy": 8966},
        {
            "maker": "STMicroelectronics",
            "nics": [["ETH", "LAN", "02:24:31:38:32:33", "192.168.4.20", None]],
        },
    ),
    "NUCLEO_H743ZI": (
        stm32(
            "28003a000851383438373730",
            [400000000, 200000000, 100000000, 100000000], 1024, "1ff1e880",
        ) | {"mpy": 8966},
        {
            "maker": "STMicroelectronics",
            "nics": [["ETH", "LAN", "02:24:31:38:32:33", "192.168.4.20", None]],
        },
    ),
    "RPI_PICO_W": (
        rp2("e6614104034b5231", 125, 212) | {"mpy": 4870},
        {
            "maker": "Raspberry Pi",
            "nics": [["WIFI", "STA_IF", "28:cd:c1:0a:1b:2c", "192.168.4.30", "2001:db8::2a"]],
        },
    ),
    "RPI_PICO2_W": (
        rp2("d83ae1c20f774b55", 150, 640) | {"mpy": 7942},
        {
            "maker": "Raspberry Pi",
            "nics": [["WIFI", "STA_IF", "28:cd:c1:0a:1b:2c", "192.168.4.30", "2001:db8::2a"]],
        },
    ),
}  # fmt: skip


def described(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "boards" / name / "board.toml").read_text())


@cache
def said(name: str, lane: str) -> dict[str, Any]:
    """What the port says on the stand-in for this board."""
    if not LANES[lane].exists():
        pytest.skip(f"no {lane}-bit MicroPython (make setup-32)")
    board = described(name)
    values = BOARDS[name][0] | {
        "platform": board["port"],
        "machine": board["machine"],
        "version": [1, 26, 1, ""],
        "reset_cause": 1,
    }
    done = subprocess.run(
        [LANES[lane], ROOT / "tests/device/board_port.py"],
        env=device_environment(),
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_told_as_it_is(name: str, lane: str) -> None:
    board = described(name)
    values, expected = BOARDS[name]
    answer = said(name, lane)
    event = answer["event"] | {
        "Id": ID,
        "TimestampUTC": "2026-11-24T03:00:00Z",
        "IntervalSeconds": 86400,
    }
    VALIDATOR.validate(
        {"AgentVersion": "1.0.0", "AgentId": ID, "MessageSchemaVersion": "1.0", "Events": [event]}
    )
    (row,) = event["Payload"]
    assert row.pop("memory_total") > row.pop("memory_free") > 0
    assert row.pop("uptime") >= 0 and row.pop("agent_version")
    size, _, blocks, free_blocks = values["statvfs"]["."][:4]
    frequency = values["freq"]
    assert row == {
        "hardware_vendor": expected["maker"],
        "hardware_model": board["machine"],
        "hardware_serial_number": values["unique_id"],
        "firmware_vendor": "MicroPython",
        "firmware_version": values["banner"],
        "os_name": "MicroPython",
        "os_version": "1.26.1",
        "os_platform": board["port"],
        "os_arch": board["mpy_arch"],
        "agent_type": "Vedette",
        "storage_total": size * blocks,
        "storage_free": size * free_blocks,
        "cpu_frequency": frequency[0] if isinstance(frequency, list) else frequency,
        "flash_size": None if board["port"] == "rp2" else board["memory"]["flash"],
        "file_system": {"littlefs": "VfsLfs2", "fat": "VfsFat"}[board["memory"]["filesystem"]],
        "reset_cause": "PWRON_RESET",
        "nics": [dict(zip(NIC, nic, strict=True)) for nic in expected["nics"]],
    }
    assert answer["overflow_policy"] == "DropNew"
    causes = {number: name for name, number in values["causes"].items()}
    assert answer["reset_causes"] == {str(number): causes.get(number) for number in range(7)}
    assert answer["secrets"] == [SECRET if board["port"] == "esp32" else None, None]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_told_what_to_do(name: str, lane: str) -> None:
    calls = said(name, lane)["calls"]
    assert calls[:2] == ["WDT 8000", "feed"]
    if BOARDS[name][0]["watchdog_ms"] < 40000:
        assert calls[2].startswith("watchdog: this board cannot wait 40 s: timeout exceeds")
    else:
        assert calls[2] == "WDT 40000"
    # 2030-03-17 17:46:40 is a Sunday, the seventh day; after a crash, and only then, a reset.
    assert calls[3:] == [[2030, 3, 17, 7, 17, 46, 40, 0], "reset"]


def test_no_board_is_left_out() -> None:
    folders = {path.parent.name for path in (ROOT / "boards").glob("*/board.toml")}
    assert folders - {"unix"} == set(BOARDS)
