"""A command for each device of a list, several at a time; what is done is not done again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from vedette_tools.errors import INVALID, CommandError, reason
from vedette_tools.programs import installed

NAME = "device"
PORT = "port"
TIMEOUT_S = 900
END_S = 5  # for a command that is told to end


@dataclass(frozen=True)
class Outcome:
    """What a command came to for one device. `report` is its JSON."""

    device: str
    code: int
    report: dict[str, Any]

    @property
    def says(self) -> str:
        error = self.report.get("error")
        if error:
            return ": ".join(filter(None, (error["what"], error.get("why"))))
        return str(self.report.get("state") or "done")


def read(path: Path) -> list[dict[str, str]]:
    """The devices of a CSV file with a heading, or of a YAML list of mappings.

    Each has a `device`; a `port` is the board's; other columns are for the command.
    Errors: CommandError.
    """
    import yaml  # here, as it takes long to import

    try:
        # Spreadsheets begin UTF-8 with a mark, which would be a part of the first heading.
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".csv":
                rows: Any = list(csv.DictReader(file, strict=True))
            else:
                rows = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, csv.Error, yaml.YAMLError, RecursionError) as error:
        raise CommandError(f"cannot read {path}", why=reason(error), code=INVALID) from None
    if not isinstance(rows, list) or not rows:
        raise _wrong(path, "it is no list of devices")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not row.get(NAME):
            raise _wrong(path, f"entry {number} has no {NAME}")
        if None in row or None in row.values():
            raise _wrong(path, f"entry {number} has not as many columns as the heading")
    devices = [{str(key): str(value) for key, value in row.items()} for row in rows]
    names = [row[NAME] for row in devices]
    for name in names:
        if names.count(name) > 1:
            raise _wrong(path, f"{name} is in it twice")
    return devices


def words_for(device: dict[str, str], command: list[str]) -> list[str]:
    """The command's words with each {column} filled in. Errors: CommandError."""
    try:
        return [word.format_map(device) for word in command]
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        says = f"{error} is no column" if isinstance(error, KeyError) else str(error)
        raise CommandError(
            f"{' '.join(command)!r} cannot be filled in for {device[NAME]}",
            why=f"{says}; there are {', '.join(device)}",
            code=INVALID,
        ) from None


class Progress:
    """Which devices a command is done for, kept beside the list."""

    def __init__(self, path: Path, command: list[str]) -> None:
        self.path = path.with_name(path.name + ".done.json")
        self._command = hashlib.sha256(json.dumps(command).encode()).hexdigest()
        self._lock = threading.Lock()
        self._all: dict[str, list[str]] = {}
        try:
            self._all = json.loads(self.path.read_text())
        except FileNotFoundError:
            pass
        except ValueError:
            raise CommandError(
                f"{self.path} is damaged", next_step="delete it; all devices are done again"
            ) from None

    @property
    def done(self) -> set[str]:
        return set(self._all.get(self._command, ()))

    def add(self, device: str) -> None:
        with self._lock:
            self._all.setdefault(self._command, []).append(device)
            self._keep()

    def forget(self) -> None:
        """The command is done for all: the next time it begins anew."""
        self._all.pop(self._command, None)
        self._keep()

    def _keep(self) -> None:
        try:
            if self._all:
                new = self.path.with_suffix(".new")
                new.write_text(json.dumps(self._all))
                new.replace(self.path)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise CommandError(
                f"cannot keep what is done, in {self.path}",
                why=reason(error),
                next_step="copy the list to a folder that you may write to",
            ) from None


def run(
    devices: list[dict[str, str]],
    command: list[str],
    jobs: int,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Runs the command for each device, `jobs` at a time; tells each outcome as it comes."""
    planned = [(device, _words(device, command)) for device in devices]

    def one(item: tuple[dict[str, str], list[str]]) -> Outcome:
        outcome = _run_one(*item)
        tell(outcome)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, planned))


def watch(
    devices: list[dict[str, str]],
    command: list[str],
    tell: Callable[[str, dict[str, Any]], None],
) -> bool:
    """Runs a command that shows what a board says for all devices at once, until Ctrl-C.

    Tells each device with each document of its JSON as it comes, {"text": line} for a line that is
    none. Returns whether none of them failed.
    """
    planned = [(device[NAME], _words(device, command), _environment(device)) for device in devices]
    said: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def follow(name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            said.put((name, line))
        said.put((name, ""))

    processes = []
    try:
        for name, words, environment in planned:
            process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,  # Ctrl-C is for us, and we tell them
            )
            processes.append(process)
            threading.Thread(target=follow, args=(name, process), daemon=True).start()
        left = len(processes)
        while left:
            name, line = said.get()
            if line:
                tell(name, _document(line) or {"text": line.rstrip()})
            else:
                left -= 1
        return not any([process.wait() for process in processes])
    except KeyboardInterrupt:
        return not any(process.poll() for process in processes)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_one(device: dict[str, str], words: list[str]) -> Outcome:
    try:
        done = subprocess.run(
            words,
            env=_environment(device),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        code, output, errors = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, output, errors = 1, "", f"no end within {TIMEOUT_S} s"
    report = _document(output)
    if report is None:
        lines = [line for line in errors.splitlines() if line.strip()]
        report = {"error": {"what": lines[-1] if lines else output.strip()}} if code else {}
    return Outcome(device[NAME], code, report)


def _words(device: dict[str, str], command: list[str]) -> list[str]:
    return [str(installed("vedette")), *words_for(device, command), "--json"]


def _environment(device: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **({"VEDETTE_PORT": device[PORT]} if PORT in device else {})}


def _document(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _wrong(path: Path, why: str) -> CommandError:
    return CommandError(
        f"{path} does not do",
        why=why,
        next_step=f"a CSV file with the heading `{NAME},{PORT}`, or a YAML list of such mappings",
        code=INVALID,
    )
