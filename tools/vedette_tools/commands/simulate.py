"""`vedette simulate`: the agent on MicroPython's unix port, with an application beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette_tools import mpy
from vedette_tools.commands.errors import user_errors
from vedette_tools.commands.monitor import as_document
from vedette_tools.commands.options import AsJson
from vedette_tools.connection import parse_connection_string, state_directory
from vedette_tools.errors import CommandError, reason
from vedette_tools.hub import strict_json
from vedette_tools.programs import installed
from vedette_tools.project import APP
from vedette_tools.provisioning import CONFIG
from vedette_tools.roots import der_files

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = Path(__file__).resolve().parent.parent / "sample" / "app.py"
DEVICE = "VEDETTE_DEVICE"
HEAP = re.compile(r"\d+[kKmM]?")


@user_errors
def simulate(
    micropython: Annotated[
        Path | None, typer.Option(help="Another MicroPython than the one of the environment.")
    ] = None,
    heap: Annotated[
        str, typer.Option(help="The heap of the board that is simulated, e.g. 160k.")
    ] = "160k",
    app: Annotated[
        Path | None, typer.Option(help="The application, with `async def main()`.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A config.json to start from; see docs/embedding.md.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Directory that stands for the board's file system.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the agent as on a board, until Ctrl-C; without --app, it runs alone.

    VEDETTE_DEVICE is the device's connection string, as `vedette device create` prints it.
    """
    connection_string = os.environ.pop(DEVICE, "")
    if not connection_string:
        raise CommandError(
            "it is not said which device this is",
            next_step=f"set {DEVICE} to what `vedette device create` prints",
        )
    if not HEAP.fullmatch(heap):
        raise CommandError(f"--heap {heap!r} is not a size such as 160k or 2m")
    program = (micropython or installed("micropython")).absolute()
    if not os.access(program, os.X_OK):
        raise CommandError(f"{program} cannot be run. Give --micropython, or run `make setup`")
    name = _folder(parse_connection_string(connection_string))
    board = (state or state_directory() / "simulated" / name).expanduser().resolve()
    try:
        board.mkdir(parents=True, exist_ok=True)
        _check_board(board)
        _write_config(board, connection_string, config)
        _put_application(board, app)
    except OSError as error:
        raise CommandError(f"cannot write to {board}", why=reason(error)) from None
    command, environment = mpy.simulated_board(program, heap, board)
    os.chdir(board)
    if as_json:
        raise typer.Exit(_told(command, environment))
    os.execve(program, command, environment)


def _folder(fields: dict[str, str]) -> str:
    """A name for the folder of this device's board. It leads to no other folder: `..` is an id,
    and what was typed wrong may hold slashes."""
    name = "-".join(filter(None, (fields.get("DeviceId"), fields.get("ModuleId"))))
    return name.replace("/", "-") if name.strip(".") else "device"


def _told(command: list[str], environment: dict[str, str]) -> int:
    """Runs it, and tells its lines as `vedette monitor` does; returns its exit code."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # or a terminal's Ctrl-C would reach it twice
    ) as running:
        assert running.stdout
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, lambda number, frame: running.send_signal(number))
        for line in running.stdout:
            typer.echo(as_document(line.rstrip()))
    return running.returncode


def _check_board(board: Path) -> None:
    """Errors: CommandError for a folder with an app.py that is its owner's, as a project has: the
    one on a simulated board is replaced, or removed."""
    if (board / APP).exists() and not (board / CONFIG).exists():
        raise CommandError(
            f"{board} is no simulated board",
            why=f"there is an {APP}, and no {CONFIG} beside it",
            next_step="give another folder as --state",
        )


def _write_config(board: Path, connection_string: str, config: Path | None) -> None:
    """The board's config.json: the given one, with the connection string and the hub's CA."""
    settings: dict[str, Any] = {}
    if config:
        try:
            settings = strict_json.loads(config.read_bytes())
        except OSError as error:
            raise CommandError(f"cannot read {config}: {error.strerror}") from None
        except ValueError as error:
            raise CommandError(f"{config} is not JSON: {error}") from None
        if not isinstance(settings, dict):
            raise CommandError(f"{config} is JSON, but not an object {{…}}")
    settings["connection_string"] = connection_string
    if "ca" not in settings:
        roots = der_files()
        for name, content in roots.items():
            (board / name).write_bytes(content)
        settings["ca"] = list(roots)
    target = board / CONFIG
    target.touch(mode=0o600)
    target.write_text(json.dumps(settings, indent=1))


def _put_application(board: Path, app: Path | None) -> None:
    target = board / APP
    if app is None:
        target.unlink(missing_ok=True)
        return
    try:
        shutil.copyfile(app, target)
    except OSError as error:
        raise CommandError(f"cannot read {app}", why=reason(error)) from None
