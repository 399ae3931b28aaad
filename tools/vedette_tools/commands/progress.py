"""How far a command is, on stderr, for a person: nothing where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bar(task: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields what is called with the bytes that are done."""
    columns = (TextColumn(task), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        identity = p.add_task(task, total=total)
        yield lambda size: p.advance(identity, size)


@contextmanager
def busy(task: str) -> Iterator[None]:
    """While it goes on, and takes no known time."""
    console = Console(stderr=True)
    with console.status(task) if console.is_terminal else nullcontext():
        yield
