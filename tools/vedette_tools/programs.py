"""Other projects' programs, from the environment that this one is installed in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def installed(name: str) -> Path:
    """Where a program is, such as mpremote."""
    return Path(sys.executable).with_name(name)


def run_shown(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs it: on a terminal what it says is seen as it comes, else it is kept in `stdout`."""
    shown = sys.stderr.isatty()
    return subprocess.run(
        command,
        stdout=sys.stderr if shown else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
