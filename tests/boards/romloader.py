"""Espressif's ROM loader and its flasher stub, as esptool speaks with them, on a pseudo-terminal.

Source: Espressif's "Serial Protocol" page of the esptool documentation.
"""

from __future__ import annotations

import hashlib
import os
import pty
import select
import struct
import threading
import tty
import zlib
from dataclasses import dataclass, field
from pathlib import Path

END, ESCAPE = b"\xc0", b"\xdb"
CHIP_MAGIC_REGISTER = 0x40001000
FLASH_SIZE = 4 << 20
FLASH_ID = 0x164020  # 4 MB
SECURITY_INFO = 0x14
UNKNOWN_COMMAND = b"\x01\x05"


@dataclass(frozen=True)
class Chip:
    identity: int
    magic: int
    spi_data: int  # the register that holds what the flash answered
    tells_identity: bool


CHIPS = {
    "esp32": Chip(0, 0x00F01D83, 0x3FF42080, False),
    "esp32s3": Chip(9, 9, 0x60002058, True),
    "esp32c3": Chip(5, 5, 0x60002058, True),
}


@dataclass
class RomLoader:
    chip: Chip
    cut_after: int | None = None  # blocks of flash data
    flash: bytearray = field(default_factory=lambda: bytearray(b"\xff" * FLASH_SIZE))
    writes: list[tuple[int, int]] = field(default_factory=list)  # offset and size of each begin

    def __post_init__(self) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = Path(os.ttyname(self._slave))
        self._stub = False
        self._at = 0
        self._inflate = zlib.decompressobj()
        self._blocks = 0
        self._quit_read, self._quit_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._quit_write, b"q")
        self._thread.join(10)
        for file in (self._quit_read, self._quit_write):
            os.close(file)

    def _run(self) -> None:
        try:
            self._serve()
        finally:  # the line is cut
            os.close(self._master)
            os.close(self._slave)

    def _serve(self) -> None:
        data = b""
        while True:
            ready, _, _ = select.select([self._master, self._quit_read], [], [])
            if self._quit_read in ready or self._blocks == self.cut_after:
                return
            data += os.read(self._master, 65536)
            while END in data:
                packet, _, data = data.partition(END)
                if packet:
                    packet = packet.replace(b"\xdb\xdc", END).replace(b"\xdb\xdd", ESCAPE)
                    self._command(packet)

    def _command(self, packet: bytes) -> None:
        direction, command, size = struct.unpack_from("<BBH", packet)
        body = packet[8:]
        if direction or len(body) != size:
            return
        handler = getattr(self, f"_on_{command:02x}", None)
        if command == SECURITY_INFO and not self.chip.tells_identity:
            handler = None
        if handler is None:
            self._answer(command, 0, b"", UNKNOWN_COMMAND)
        else:
            value, data = handler(body) or (0, b"")
            self._answer(command, value, data)
        if command == 0x06:  # the stub runs, and says so
            self._stub = True
            self._send(b"OHAI")

    def _answer(self, command: int, value: int, data: bytes, status: bytes = b"\0\0") -> None:
        # The ROM has two more status bytes than the stub.
        data += status + (b"" if self._stub else b"\0\0")
        self._send(struct.pack("<BBHI", 1, command, len(data), value) + data)

    def _send(self, packet: bytes) -> None:
        escaped = packet.replace(ESCAPE, b"\xdb\xdd").replace(END, b"\xdb\xdc")
        os.write(self._master, END + escaped + END)

    def _on_08(self, _: bytes) -> tuple[int, bytes]:  # SYNC: eight answers
        for _ in range(7):
            self._answer(0x08, 1, b"")
        return 1, b""

    def _on_0a(self, body: bytes) -> tuple[int, bytes]:  # READ_REG
        (address,) = struct.unpack("<I", body)
        known = {CHIP_MAGIC_REGISTER: self.chip.magic, self.chip.spi_data: FLASH_ID}
        return known.get(address, 0), b""

    def _on_14(self, _: bytes) -> tuple[int, bytes]:  # GET_SECURITY_INFO
        return 0, struct.pack("<IBBBBBBBBII", 0, *[0] * 8, self.chip.identity, 0)

    def _nothing(self, _: bytes) -> None:
        pass

    # WRITE_REG, MEM_BEGIN, MEM_END, MEM_DATA, SPI_SET_PARAMS, SPI_ATTACH, CHANGE_BAUDRATE,
    # FLASH_END, FLASH_DEFL_END
    _on_09 = _on_05 = _on_06 = _on_07 = _on_0b = _on_0d = _on_0f = _on_04 = _on_12 = _nothing

    def _on_02(self, body: bytes) -> None:  # FLASH_BEGIN, FLASH_DEFL_BEGIN
        size, _, _, offset = struct.unpack_from("<IIII", body)
        self.writes.append((offset, size))
        self._at = offset
        self._inflate = zlib.decompressobj()

    _on_10 = _on_02

    def _on_11(self, body: bytes) -> None:  # FLASH_DEFL_DATA
        self._write(self._inflate.decompress(body[16:]))

    def _on_03(self, body: bytes) -> None:  # FLASH_DATA
        self._write(body[16:])

    def _write(self, data: bytes) -> None:
        self._blocks += 1
        self.flash[self._at : self._at + len(data)] = data
        self._at += len(data)

    def _on_13(self, body: bytes) -> tuple[int, bytes]:  # SPI_FLASH_MD5
        offset, size = struct.unpack_from("<II", body)
        digest = hashlib.md5(self.flash[offset : offset + size])
        return 0, digest.digest() if self._stub else digest.hexdigest().encode()
