"""What went wrong on a device is known at the hub: at once, or at its next start."""

from __future__ import annotations

from hubfixture import LocalHub

from .conftest import Agent, rows, settled

BREAKS = """
import asyncio, os

async def main():
    while "go" not in os.listdir():
        await asyncio.sleep_ms(20)
    raise ValueError("what is secret: c2VjcmV0")
"""


def test_what_ended_the_application_is_told_at_once(hub: LocalHub, agent: Agent) -> None:
    connection_string = hub.create_device("broken-app")
    agent.start(connection_string, BREAKS)
    settled(hub, "broken-app")  # nothing else will make it send before its interval is over
    (agent.board / "go").touch()
    records = hub.wait_events("broken-app", lambda found: rows(found, "Crash"), 5)
    (row,) = rows(records, "Crash")
    assert (row["error"], row["reset_cause"], row["failed_starts"]) == ("ValueError", None, 0)
    assert row["where"].endswith("app.py:7 main") and "c2VjcmV0" not in str(records)


def test_what_kept_the_agent_from_starting_is_told_at_the_next_start(
    hub: LocalHub, agent: Agent
) -> None:
    connection_string = hub.create_device("broken-agent")
    (agent.board / "vedette-state").mkdir(parents=True)
    evidence = '{"count": 0, "error": "MemoryError", "where": "a.py:1 b", "safe_mode": true}'
    (agent.board / "vedette-state" / "starts.json").write_text(evidence)
    agent.start(connection_string)
    records = hub.wait_events("broken-agent", lambda found: rows(found, "Crash"))
    (row,) = rows(records, "Crash")
    assert (row["error"], row["where"], row["safe_mode"]) == ("MemoryError", "a.py:1 b", True)
    kept = (agent.board / "vedette-state" / "starts.json").read_text()
    assert "MemoryError" not in kept
