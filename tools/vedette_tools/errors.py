"""How a command fails: what went wrong, why, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit codes.
FAILED = 1
USAGE = 2  # as Typer's
NO_BOARD = 3
INVALID = 4  # a project, a board's description or a list of devices
ROLLED_BACK = 5
PARTLY = 6  # some devices of a fleet failed
INTERRUPTED = 130  # as a shell has it for Ctrl-C

LISTED = 8  # names that one line has room for


class CommandError(Exception):
    """A command failed: what, why, and what to do, for the person who gave it."""

    def __init__(
        self, what: str, *, why: str = "", next_step: str = "", code: int = FAILED
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step
        self.code = code

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"error: {self.what}"]
        if self.why:
            lines.append(f"  why:  {self.why}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return lines

    def document(self) -> dict[str, dict[str, str | int]]:
        """For --json."""
        fields: dict[str, str | int] = {"what": self.what, "code": self.code}
        fields.update({"why": self.why} if self.why else {})
        fields.update({"next": self.next_step} if self.next_step else {})
        return {"error": fields}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What a misspelt word may have meant, as a sentence; else what there is."""
    known = sorted(known)
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    if close:
        return f"did you mean {lowered[close[0]]}?"
    more = f", and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"there are {', '.join(known[:LISTED])}{more}"


def reason(error: Exception) -> str:
    """Why a file could not be used; its name is told already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
