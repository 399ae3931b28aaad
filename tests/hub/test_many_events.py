"""`vedette hub events` stays quick with 100,000 messages stored."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hubfixture import COMMAND, LocalHub
from vedette_tools.hub.store import Event, Store

STORED = 100_000
BODY = b'{"Events": [{"Name": "Heartbeat", "Payload": "' + b"x" * 550 + b'"}]}'


def fill(hub: LocalHub) -> None:
    hub.state.mkdir()
    store = Store(hub.state / "hub.db")
    with store.transaction():
        store.add_events(
            Event(f"d-{number % 100}", "", 1_700_000_000_000 + number, f"n={number}", BODY)
            for number in range(STORED)
        )
    store.close()


def took(hub: LocalHub, *options: str) -> tuple[float, int]:
    """Seconds, and the lines printed."""
    begin = time.monotonic()
    done = subprocess.run(
        [COMMAND, "hub", "events", *options], env=hub.env, capture_output=True, check=True
    )
    return time.monotonic() - begin, done.stdout.count(b"\n")


@pytest.mark.slow
def test_events_with_many_stored(tmp_path: Path) -> None:
    full, empty = LocalHub(tmp_path / "full"), LocalHub(tmp_path / "empty")
    fill(full)
    try:
        full.start()
        empty.start()
        seconds, lines = took(full)
        print(f"all {STORED}: {seconds:.2f} s")
        assert lines == STORED
        for options, found in (
            (["--limit", "10"], 10),
            (["--device", "d-7"], STORED // 100),
            (["--device", "d-7", "--limit", "10"], 10),
            (["--since", "2199-01-01"], 0),
        ):
            with_many = min(took(full, *options) for _ in range(3))
            with_none = min(took(empty, *options) for _ in range(3))
            print(f"{' '.join(options)}: {with_many[0]:.2f} s, with none {with_none[0]:.2f} s")
            assert with_many[1] == found
            assert with_many[0] < with_none[0] + 0.5
    finally:
        full.stop()
        empty.stop()
