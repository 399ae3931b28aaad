"""How a command that failed ends: a few lines on stderr and an exit code, never a traceback."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from vedette_tools.errors import INTERRUPTED, CommandError

P = ParamSpec("P")


def user_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Decorates a command. Where it was asked for JSON (`as_json`), so is what went wrong."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except CommandError as error:
            if kwargs.get("as_json"):
                typer.echo(json.dumps(error.document()))
            else:
                typer.echo("\n".join(error.lines()), err=True)
            raise typer.Exit(error.code) from None
        except BrokenPipeError:
            # The reader of our output has gone (`| head`): an ordinary end. Nothing may be flushed
            # into the closed pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (KeyboardInterrupt, typer.Abort):  # the latter where a question was asked
            raise typer.Exit(INTERRUPTED) from None

    return wrapped
