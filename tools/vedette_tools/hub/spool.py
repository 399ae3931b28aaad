"""The journal that the broker's plugin writes and the hub reads: see plugin/vedette_plugin.c.

Records stand one after the other in numbered files. A record is in the spool before the broker
acknowledges it; where the hub has got to is kept with what it made of the records, in one
transaction, so that each is taken once whatever dies.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT = b"PSUD"

_MAGIC = 0x31444556
_HEADER = struct.Struct("=IIQHHBBBx")
_READ_BYTES = 1 << 20


class Position(NamedTuple):
    """Where the next record begins: a file's number, and an offset in it."""

    file: int = 1
    offset: int = 0


class Record(NamedTuple):
    kind: int
    time_ms: int
    session: str
    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def token(self) -> str:
        return self.session.partition(" ")[0]

    @property
    def persistent(self) -> bool:
        """True when the session is to outlive its connection: see Session.token."""
        return self.session.startswith("p")

    @property
    def path(self) -> str:
        return self.session.partition(" ")[2]


class Spool:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def next_number(self, after: Position) -> int:
        """The number that no file has yet: each start of the broker begins a file of its own."""
        return max([after.file, *self._numbers()]) + 1

    def end(self) -> Position:
        """Where the last record ends, whole or torn."""
        number = max(self._numbers(), default=0)
        return Position(number, self._path(number).stat().st_size if number else 0)

    def read(self, position: Position) -> tuple[list[Record], Position]:
        """The whole records from `position` on, about a megabyte of them, and where they end."""
        while True:
            data = self._read_at(position)
            records, length = _parse(data)
            if records:
                return records, Position(position.file, position.offset + length)
            later = [number for number in self._numbers() if number > position.file]
            if not later:
                return [], position
            # A file that has a successor grows no more; a torn record at its end was never
            # acknowledged. It may have grown between the read and the listing: look again.
            if len(self._read_at(position)) == len(data):
                position = Position(min(later))

    def forget(self, position: Position) -> None:
        """Delete the files that lie wholly before `position`."""
        for number in self._numbers():
            if number < position.file:
                self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:012d}"

    def _numbers(self) -> Iterator[int]:
        return (int(name) for name in os.listdir(self._directory) if name.isdigit())

    def _read_at(self, position: Position) -> bytes:
        try:
            with self._path(position.file).open("rb") as file:
                file.seek(position.offset)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            return b""
        return data


def _parse(data: bytes) -> tuple[list[Record], int]:
    records = []
    at = 0
    while at + _HEADER.size <= len(data):
        magic, payload_len, time_ms, session_len, topic_len, kind, qos, retain = (
            _HEADER.unpack_from(data, at)
        )
        if magic != _MAGIC:
            raise ValueError("the spool is damaged: no record where one should begin")
        session_at = at + _HEADER.size
        topic_at = session_at + session_len
        payload_at = topic_at + topic_len
        end = payload_at + payload_len
        if end > len(data):
            break
        records.append(
            Record(
                kind,
                time_ms,
                data[session_at:topic_at].decode(),
                data[topic_at:payload_at].decode(errors="replace"),
                data[payload_at:end],
                qos,
                bool(retain),
            )
        )
        at = end
    return records, at
