"""How a command that failed ends: a few lines on stderr and an exit code, never a traceback."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from vedette_tools.errors import FAILED, INTERRUPTED, USAGE, CommandError

P = ParamSpec("P")


def user_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Decorates a command. Where it was asked for JSON (`as_json`), so is what went wrong."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                command(*args, **kwargs)
            except CommandError as error:
                _tell(error, as_json=bool(kwargs.get("as_json")))
                raise typer.Exit(error.code) from None
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has gone (`| head`): an ordinary end
            _drop_output()
        except OSError as error:  # our output cannot be written: a full disk
            _drop_output()
            _tell(CommandError(str(error)))
            raise typer.Exit(FAILED) from None
        except UnicodeEncodeError as error:  # a shell passes on any bytes
            _tell(CommandError(f"{error.object!r} is no text in UTF-8"))
            raise typer.Exit(USAGE) from None
        except (KeyboardInterrupt, typer.Abort):  # the latter where a question was asked
            raise typer.Exit(INTERRUPTED) from None

    return wrapped


def _tell(error: CommandError, *, as_json: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps(error.document()))
    else:
        typer.echo("\n".join(error.lines()), err=True)


def _drop_output() -> None:
    """What is not written yet would be tried, and fail, once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
