"""What became of earlier starts: counts those that did not hold, and keeps what ended one.

One small file tells. A start writes it twice, once when it begins and once when it has held; one
out of deep sleep, or on a host, not at all.
"""

import io
import sys

from micropython import const

from . import ports

_FILE = const("starts")
_TRIES = const(3)  # starts in a row that fail; then one without the agent
_FRAMES = const(3)  # of a traceback: the innermost
_COLUMNS = const("reset_cause,error,where,failed_starts,safe_mode")


def begin(store):
    """Counts this start. False when too many in a row before it failed."""
    known = _load(store)
    cause = ports.load().reset_cause()
    # Not a host, whose supervisor counts, nor a device that sleeps, and starts many times a day.
    counted = cause not in (None, "DEEPSLEEP_RESET")
    # One that was switched off did not fail either.
    failed = known["count"] if counted and cause != "PWRON_RESET" else 0
    if failed >= _TRIES:
        _keep(store, known, safe_mode=True)
        return False
    _keep(store, known, count=failed + 1 if counted else 0)
    return True


def held(store):
    """This start has lived long enough, or was ended on purpose: it did not fail."""
    _keep(store, _load(store), count=0)


def note(store, error):
    """Keeps type and place of an exception; never its text, which can be secret."""
    text = io.StringIO()
    sys.print_exception(error, text)
    frames = []
    for line in text.getvalue().split("\n")[1:]:
        if not line.startswith('  File "'):
            break
        _, path, place = line.split('"')  # , line 3, in main
        number, _, name = place[len(", line ") :].partition(", in ")
        frames.append("%s:%s %s" % (path, number, name))
    where = " > ".join(frames[-_FRAMES:])
    _keep(store, _load(store), error=type(error).__name__, where=where)


def report(agent, starting=False):
    """Makes a Crash event of how the device came to start, or of what ended the application.

    None where all went well. It is forgotten once the outbox has it.
    """
    known = _load(agent.store)
    cause = ports.load().reset_cause() if starting else None
    failed = max(known["count"] - 1, 0)
    if failed or known["error"] or known["safe_mode"] or cause == "WDT_RESET":
        row = [cause, known["error"], known["where"], failed, known["safe_mode"]]
        if agent.tell("Crash", _COLUMNS, row):
            agent.sender.wake()
            _keep(agent.store, known, error=None, where=None, safe_mode=False)


def _load(store):
    known = {"count": 0, "error": None, "where": None, "safe_mode": False}
    kept = store.load(_FILE)
    if isinstance(kept, dict) and isinstance(kept.get("count"), int):
        known.update(kept)
    return known


def _keep(store, known, **changes):
    if any([known[key] != value for key, value in changes.items()]):
        known.update(changes)
        store.keep(_FILE, known)
