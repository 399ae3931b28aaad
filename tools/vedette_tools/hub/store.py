"""What the hub keeps, in one SQLite file (WAL): identities with their twins, events, the journal's
position. Methods block and belong to one thread, the hub's database thread.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vedette_tools.hub.identity import Identity
from vedette_tools.hub.spool import Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (
    device TEXT NOT NULL, module TEXT NOT NULL,
    record TEXT NOT NULL, twin TEXT NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription (
    device TEXT NOT NULL, module TEXT NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL,
    PRIMARY KEY (device, module, filter)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL, module TEXT NOT NULL, time_ms INTEGER NOT NULL,
    bag TEXT NOT NULL, body BLOB NOT NULL, schema_error TEXT
);
CREATE INDEX IF NOT EXISTS event_by_device ON event (device, id);
CREATE TABLE IF NOT EXISTS cloud_message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL, expiry_ms INTEGER NOT NULL, deliveries INTEGER NOT NULL,
    bag TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS feedback (id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS metered (
    day TEXT PRIMARY KEY, units INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cloud_message_by_device ON cloud_message (device, id);
"""


PARTITIONS = ("0", "1")


def partition_of(device: str) -> str:
    """Which part of the events has a device's, as readers by Event Hubs see them."""
    return PARTITIONS[zlib.crc32(device.encode()) % len(PARTITIONS)]


class Event(NamedTuple):
    """A device's message; `bag` is its property bag as it came."""

    device: str
    module: str
    time_ms: int
    bag: str
    body: bytes
    schema_error: str | None = None


class CloudMessage(NamedTuple):
    """A cloud-to-device message; `bag` as it goes into the topic."""

    device: str
    expiry_ms: int
    deliveries: int
    bag: str
    body: bytes


class Store:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.create_function("partition_of", 1, partition_of, deterministic=True)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def setting(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def set_setting(self, name: str, value: Any) -> None:
        self._db.execute("REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value)))

    def position(self) -> Position:
        return Position(*(self.setting("spool_position") or ()))

    def set_position(self, position: Position) -> None:
        self.set_setting("spool_position", position)

    def identities(self) -> Iterator[tuple[Identity, dict[str, Any]]]:
        for device, module, record in self._db.execute(
            "SELECT device, module, record FROM identity"
        ):
            yield Identity(device, module), json.loads(record)

    def put_identity(self, identity: Identity, record: dict[str, Any], twin: Any) -> None:
        """Keep an identity's record; `twin` is the one it starts with if it is new."""
        self._db.execute(
            "INSERT INTO identity VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET record = excluded.record",
            (*identity, json.dumps(record), json.dumps(twin)),
        )

    def delete_identity(self, identity: Identity) -> None:
        """A device goes with its modules, and with the messages that wait for it."""
        if not identity.module:
            self.delete_cloud_messages(identity.device)
        for table in ("identity", "subscription"):
            self._db.execute(
                f"DELETE FROM {table} WHERE device = ? AND (module = ? OR ? = '')",
                (identity.device, identity.module, identity.module),
            )

    def twin(self, identity: Identity) -> Any:
        """The twin, or None where there is no such identity."""
        row = self._db.execute(
            "SELECT twin FROM identity WHERE device = ? AND module = ?", identity
        ).fetchone()
        return json.loads(row[0]) if row else None

    def set_twin(self, identity: Identity, twin: Any) -> None:
        self._db.execute(
            "UPDATE identity SET twin = ? WHERE device = ? AND module = ?",
            (json.dumps(twin), *identity),
        )

    def subscriptions(self) -> Iterator[tuple[Identity, str, int]]:
        """The subscriptions of persistent sessions: topic filter and QoS."""
        for device, module, topic_filter, qos in self._db.execute("SELECT * FROM subscription"):
            yield Identity(device, module), topic_filter, qos

    def set_subscription(self, identity: Identity, topic_filter: str, qos: int) -> None:
        self._db.execute(
            "REPLACE INTO subscription VALUES (?, ?, ?, ?)", (*identity, topic_filter, qos)
        )

    def delete_subscriptions(self, identity: Identity, topic_filter: str | None = None) -> None:
        """Delete one of an identity's subscriptions, or all."""
        self._db.execute(
            "DELETE FROM subscription"
            " WHERE device = ? AND module = ? AND (filter = ? OR ? IS NULL)",
            (*identity, topic_filter, topic_filter),
        )

    def add_events(self, events: Iterable[Event]) -> None:
        self._db.executemany(
            "INSERT INTO event (device, module, time_ms, bag, body, schema_error)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            events,
        )

    def events(
        self, after: int, limit: int, device: str | None = None, since_ms: int = 0
    ) -> list[tuple[int, Event]]:
        """The first `limit` events whose number is over `after`, with their numbers."""
        only = "" if device is None else " AND device = ?"
        rows = self._db.execute(
            "SELECT id, device, module, time_ms, bag, body, schema_error FROM event"
            f" WHERE id > ? AND time_ms >= ?{only} ORDER BY id LIMIT ?",
            (after, since_ms, *(() if device is None else (device,)), limit),
        )
        return [(row[0], Event(*row[1:])) for row in rows]

    def add_cloud_message(self, message: CloudMessage) -> int:
        """Returns the message's number."""
        cursor = self._db.execute(
            "INSERT INTO cloud_message (device, expiry_ms, deliveries, bag, body)"
            " VALUES (?, ?, ?, ?, ?)",
            message,
        )
        return cursor.lastrowid or 0

    def cloud_messages(self, device: str) -> list[tuple[int, CloudMessage]]:
        """What waits for a device, oldest first."""
        rows = self._db.execute(
            "SELECT id, device, expiry_ms, deliveries, bag, body FROM cloud_message"
            " WHERE device = ? ORDER BY id",
            (device,),
        )
        return [(row[0], CloudMessage(*row[1:])) for row in rows]

    def cloud_message(self, number: int) -> CloudMessage | None:
        row = self._db.execute(
            "SELECT device, expiry_ms, deliveries, bag, body FROM cloud_message WHERE id = ?",
            (number,),
        ).fetchone()
        return CloudMessage(*row) if row else None

    def expired_cloud_messages(self, now_ms: int) -> list[int]:
        """The numbers of those that have waited too long."""
        rows = self._db.execute("SELECT id FROM cloud_message WHERE expiry_ms < ?", (now_ms,))
        return [row[0] for row in rows]

    def count_cloud_messages(self, device: str) -> int:
        row = self._db.execute("SELECT count(*) FROM cloud_message WHERE device = ?", (device,))
        return int(row.fetchone()[0])

    def count_delivery(self, numbers: Iterable[int]) -> None:
        self._db.executemany(
            "UPDATE cloud_message SET deliveries = deliveries + 1 WHERE id = ?",
            [(number,) for number in numbers],
        )

    def delete_cloud_message(self, number: int) -> None:
        self._db.execute("DELETE FROM cloud_message WHERE id = ?", (number,))

    def delete_cloud_messages(self, device: str) -> None:
        self._db.execute("DELETE FROM cloud_message WHERE device = ?", (device,))

    def add_feedback(self, record: dict[str, Any]) -> None:
        self._db.execute("INSERT INTO feedback (record) VALUES (?)", (json.dumps(record),))

    def feedback(self) -> list[tuple[int, dict[str, Any]]]:
        """What nobody has taken yet, oldest first."""
        rows = self._db.execute("SELECT id, record FROM feedback ORDER BY id")
        return [(row[0], json.loads(row[1])) for row in rows]

    def delete_feedback(self, numbers: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM feedback WHERE id = ?", [(each,) for each in numbers])

    def meter(self, day: str, units: int) -> None:
        """Count units against a day's quota."""
        self._db.execute(
            "INSERT INTO metered VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET units = units + excluded.units",
            (day, units),
        )

    def metered(self, day: str) -> int:
        row = self._db.execute("SELECT units FROM metered WHERE day = ?", (day,)).fetchone()
        return int(row[0]) if row else 0

    def count_events(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM event").fetchone()[0])

    def ends(self, partition: str) -> list[tuple[int, int]]:
        """Number and time (ms) of a partition's first and last event; nothing without any."""
        rows = [
            self._db.execute(
                "SELECT id, time_ms FROM event WHERE partition_of(device) = ?"
                f" ORDER BY id {order} LIMIT 1",
                (partition,),
            ).fetchone()
            for order in ("ASC", "DESC")
        ]
        return [row for row in rows if row]

    def event_before_last(self, count: int, device: str | None = None) -> int:
        """The number after which `count` events follow, or 0 where there are fewer."""
        only, values = ("", ()) if device is None else (" WHERE device = ?", (device,))
        row = self._db.execute(
            f"SELECT id FROM event{only} ORDER BY id DESC LIMIT 1 OFFSET ?", (*values, count)
        ).fetchone()
        return row[0] if row else 0
