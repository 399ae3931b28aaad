"""Safe mode, and the evidence of crashes: what earlier starts came to, in one small file."""

import json
import os

from vedette import ports, starts
from vedette.store import Store

SECRET = "c2VjcmV0"


class Port:
    """Stands in for the platform: says how it came to start."""

    cause = None

    @classmethod
    def reset_cause(cls):
        return cls.cause


class Kept(Store):
    """A store that counts its writes to flash."""

    writes = 0

    def keep(self, name, document):
        self.writes += 1
        super().keep(name, document)


class Agent:
    def __init__(self, store, room=True):
        self.store = store
        self.room = room
        self.told = []
        self.sender = self

    def wake(self):
        """Sending does not wait for the end of an interval: the end-to-end tests see it."""

    def tell(self, name, columns, row):
        if self.room:
            self.told.append((name, dict(zip(columns.split(","), row))))
        return self.room


ports.load = lambda: Port


def _store():
    try:
        os.remove("starts.json")
    except OSError:
        pass
    return Kept(".")


def _begin(store, cause):
    Port.cause = cause
    return starts.begin(store)


def _reported(store, cause, **room):
    Port.cause = cause
    agent = Agent(store, **room)
    starts.report(agent, True)
    return agent.told


def test_after_three_starts_that_failed_the_agent_stays_off_until_one_held():
    for cause in ("HARD_RESET", "WDT_RESET", "SOFT_RESET"):
        store = _store()
        assert [_begin(store, cause) for _ in range(5)] == [True, True, True, False, False]
        starts.held(store)
        assert [_begin(store, cause) for _ in range(4)] == [True, True, True, False]


def test_a_start_that_held_ends_the_row():
    store = _store()
    assert _begin(store, "WDT_RESET") and _begin(store, "WDT_RESET")
    starts.held(store)
    assert [_begin(store, "WDT_RESET") for _ in range(4)] == [True, True, True, False]


def test_switching_off_and_deep_sleep_are_no_failures():
    store = _store()
    assert all([_begin(store, "PWRON_RESET") for _ in range(9)])
    for cause in ("DEEPSLEEP_RESET", None):  # None: a host, where others look after processes
        store = _store()
        assert all([_begin(store, cause) for _ in range(9)])
        assert store.writes == 0
    # The power switch is a way out of safe mode.
    assert [_begin(store, "HARD_RESET") for _ in range(4)][-1] is False
    assert _begin(store, "PWRON_RESET")


def test_flash_is_written_twice_a_start():
    store = _store()
    _begin(store, "HARD_RESET")
    starts.held(store)
    starts.held(store)
    assert store.writes == 2


def test_a_damaged_file_starts_anew():
    for text in ("", "{", "[]", "7", '{"count":"3"}', '{"count":null}'):
        store = _store()
        with open("starts.json", "w") as file:
            file.write(text)
        assert [_begin(store, "WDT_RESET") for _ in range(4)][2:] == [True, False], text


def _fail(depth):
    if depth:
        _fail(depth - 1)
    raise ValueError('File "%s", line 1\n  File "%s", line 2' % (SECRET, SECRET))


def test_an_error_is_kept_by_type_and_place_without_its_text():
    store = _store()
    try:
        _fail(5)
    except ValueError as error:
        starts.note(store, error)
    starts.note(store, OSError(5))  # one that was never raised has no place
    with open("starts.json") as file:
        assert json.load(file)["where"] == ""
    try:
        _fail(5)
    except ValueError as error:
        starts.note(store, error)
    with open("starts.json") as file:
        text = file.read()
    assert SECRET not in text
    ((name, row),) = _reported(store, "HARD_RESET")
    assert (name, row["error"], row["reset_cause"]) == ("Crash", "ValueError", "HARD_RESET")
    frames = row["where"].split(" > ")
    assert len(frames) == 3 and all([frame.endswith(" _fail") for frame in frames])
    assert "mpy_bringup_starts.py:" in frames[2] and len(row["where"]) < 400


def test_evidence_is_kept_until_the_outbox_has_it():
    store = _store()
    starts.note(store, KeyError(SECRET))
    assert _reported(store, None, room=False) == []
    assert _reported(store, None)[0][1]["error"] == "KeyError"
    assert _reported(store, None) == []


def test_what_is_told_at_a_start():
    store = _store()
    _begin(store, "PWRON_RESET")
    assert _reported(store, "PWRON_RESET") == []  # all is well
    assert _reported(store, "WDT_RESET")[0][1] == {
        "reset_cause": "WDT_RESET",
        "error": None,
        "where": None,
        "failed_starts": 0,
        "safe_mode": False,
    }
    for _ in range(2):
        assert _begin(store, "HARD_RESET")
    assert _reported(store, "HARD_RESET")[0][1]["failed_starts"] == 2
    assert not _begin(store, "HARD_RESET")  # safe mode: nobody can be told now
    starts.held(store)
    _begin(store, "HARD_RESET")
    row = _reported(store, "HARD_RESET")[0][1]
    assert row["safe_mode"] and row["failed_starts"] == 0
    starts.held(store)
    _begin(store, "HARD_RESET")
    assert _reported(store, "HARD_RESET") == []


def test_what_ended_the_application_is_told_while_it_runs():
    store = _store()
    starts.note(store, KeyError(1))
    agent = Agent(store)
    starts.report(agent)
    assert agent.told[0][1]["reset_cause"] is None and agent.told[0][1]["error"] == "KeyError"
