"""Puts a version of the agent, with the application, on a board; a broken transfer harms nothing.

A board has room for two versions, in the folders `v-a` and `v-b`. The file `current` names the one
that boot.py puts on the module path. A new version goes into the other folder, is read back and
compared, and only then is `current` replaced. `deployed.txt` lists what is in force: a first line
`vedette VERSION`, then `SHA-256 SIZE PATH` of each file.

boot.py and main.py stand at the root and are for a moment older or newer than the version: all
they may use of it is `vedette.tap` and `vedette.standalone.run`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from vedette_tools import mpy, rom
from vedette_tools.board_link import BoardLink, Progress
from vedette_tools.errors import INVALID, CommandError
from vedette_tools.project import sources

SLOTS = ("v-a", "v-b")
CURRENT = "current"
RECORD = "deployed.txt"
STARTS = "vedette-state/starts.json"  # failed starts of the version before; see safe mode
ROOT_FILES = ("boot.py", "main.py")
FIRMWARE = mpy.ROOT / "firmware"
PACKAGES = ("vedette", "flowtable", "nettap", "iothub", "umqtt")
MARGIN = 16384  # bytes of flash that stay free: directories, the agent's own files

RUNS = re.compile(r"vedette info: version \S+ runs")
ENDED = ("MicroPython ", "MPY: soft reboot")  # main.py did: the REPL's banner, or a reset
REFUSES = "vedette error: the agent does not run: "

Files = Mapping[str, bytes]


@dataclass
class Plan:
    """What a deployment does. Paths of `send`, `copy`, `keep` and `drop` are below the slot."""

    version: str
    slot: str
    previous: str | None  # the slot in force until now
    files: Files
    root: Files  # of ROOT_FILES, those that change
    send: list[str] = field(default_factory=list)
    copy: list[str] = field(default_factory=list)  # from the previous slot, on the board
    keep: list[str] = field(default_factory=list)  # left from the version before
    drop: list[str] = field(default_factory=list)
    stale: int = 0  # bytes of what the slot held and does not keep
    unchanged: bool = False  # the board has just this version

    @property
    def size(self) -> int:
        """Bytes that go over the line."""
        sent = sum(len(self.files[path]) for path in self.send)
        return sent + sum(map(len, self.root.values()))


def agent_version() -> str:
    text = (FIRMWARE / "vedette" / "__init__.py").read_text()
    found = re.search(r'^VERSION = "(.+)"$', text, re.MULTILINE)
    assert found
    return found[1]


def files_for(march: str, project: Path | None) -> dict[str, bytes]:
    """All files of a version, by their path below the slot: the agent's, and the application's.

    The application is each Python file of the project; app.py is the one that is run.
    Errors: CommandError where one does not compile, or has the name of a part of the agent.
    """
    compiled = mpy.compile_all(march)
    files = {
        path.relative_to(compiled).as_posix(): path.read_bytes()
        for path in sorted(compiled.rglob("*"))
        if path.is_file() and path.with_suffix(".py").name not in ROOT_FILES
    }
    if march not in mpy.HOSTS:
        files = {path: data for path, data in files.items() if path not in mpy.HOST_ONLY}
    for path in sources(project) if project else ():
        relative = path.relative_to(project) if project else path
        top = relative.parts[0].removesuffix(".py")
        if top in PACKAGES or relative.as_posix() in ROOT_FILES:
            raise CommandError(
                f"{path} cannot go on the board",
                why=f"{top} is a part of the agent",
                next_step="rename it",
                code=INVALID,
            )
        files[relative.with_suffix(".mpy").as_posix()] = mpy.compiled(path, march)
    return files


def make_plan(link: BoardLink, files: Files) -> Plan:
    """Compares the board with what it is to have. Errors: CommandError when it has no room."""
    current = (link.read(CURRENT) or b"").decode(errors="replace")
    previous = current if current in SLOTS else None
    slot = SLOTS[1] if previous == SLOTS[0] else SLOTS[0]
    wanted = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    root = _changed_root(link)
    plan = Plan(agent_version(), slot, previous, files, root)
    in_force = _digests(link, previous) if previous else {}
    held = link.tree(slot)
    there = _below(slot, held)
    plan.unchanged = in_force == wanted and not root
    if not plan.unchanged:
        for path, digest in sorted(wanted.items()):
            if there.get(path) == digest:
                plan.keep.append(path)
            elif in_force.get(path) == digest:
                plan.copy.append(path)
            else:
                plan.send.append(path)
        plan.drop = sorted(set(there) - set(wanted))
        kept = {f"{slot}/{path}" for path in plan.keep}
        plan.stale = sum(size for path, (_, size) in held.items() if path not in kept)
    return plan


def rom_plan(link: BoardLink, files: Files) -> Plan:
    """The same for a version in ROMFS, which is written as a whole."""
    plan = Plan(agent_version(), rom.FOLDER, None, files, _changed_root(link))
    plan.send = sorted(files)
    plan.unchanged = link.read(RECORD) == _record(plan).encode() and not plan.root
    return plan


def _changed_root(link: BoardLink) -> dict[str, bytes]:
    wanted = {name: (FIRMWARE / name).read_bytes() for name in ROOT_FILES}
    return {
        name: data
        for name, data in wanted.items()
        if link.digest(name) != hashlib.sha256(data).hexdigest()
    }


def put_in_force(link: BoardLink, plan: Plan) -> None:
    """The last steps: what is in `plan.slot` is what the board starts from now on."""
    record = _record(plan)
    for name, data in plan.root.items():
        link.replace(name, data)
    link.replace(CURRENT, plan.slot.encode())
    link.replace(RECORD, record.encode())
    link.remove(STARTS)


def apply(link: BoardLink, plan: Plan, progress: Progress) -> None:
    """Carries a plan out. Until its last step the board starts the version that it had."""
    new = sum(len(plan.files[path]) for path in (*plan.send, *plan.copy))
    free = link.facts().flash_free + plan.stale
    if new + MARGIN > free:
        raise CommandError(
            "the board's file system has no room for a second version",
            why=f"{new} bytes are needed, {free} are free",
            next_step="`vedette uninstall`, then deploy: the board has no version meanwhile",
        )
    for path in plan.drop:
        link.remove(f"{plan.slot}/{path}")
    for path in plan.copy:
        link.copy(f"{plan.previous}/{path}", f"{plan.slot}/{path}")
    for path in plan.send:
        link.write(f"{plan.slot}/{path}", plan.files[path], progress)
    if _digests(link, plan.slot) != {p: d for p, (d, _) in _measures(plan.files).items()}:
        raise CommandError(
            "the board does not hold what was sent",
            why="files read back are not the same",
            next_step="deploy again; the version in force is untouched",
        )
    put_in_force(link, plan)


@dataclass
class Saved:
    """What a rollback puts back."""

    root: Files
    current: bytes | None
    record: bytes | None


def save(link: BoardLink, plan: Plan) -> Saved:
    root = {name: data for name in plan.root if (data := link.read(name)) is not None}
    return Saved(root, link.read(CURRENT), link.read(RECORD))


def roll_back(link: BoardLink, saved: Saved) -> bool:
    """Puts back what was in force; False where there was none, or it is written over."""
    if saved.current is None or saved.current.decode() not in SLOTS:
        return False
    for name, data in saved.root.items():
        link.replace(name, data)
    link.replace(CURRENT, saved.current)
    if saved.record is not None:
        link.replace(RECORD, saved.record)
    return True


class Start(Enum):
    """What became of a start."""

    RUNS = "runs"
    REFUSES = "refuses"  # the agent does not take its configuration
    FAILS = "fails"


def start(link: BoardLink, timeout: float) -> tuple[Start, str]:
    """Starts the board. Returns what became of it, and the line that tells."""
    last = "it said nothing"
    begun = False
    for line in link.start(timeout):
        if not begun:
            begun = "soft reboot" in line
        elif RUNS.search(line):
            return Start.RUNS, line
        elif REFUSES in line:
            return Start.REFUSES, line.partition(REFUSES)[2]
        elif line.startswith(ENDED):
            break
        elif line.strip():
            last = line.strip()
    return Start.FAILS, last


def uninstall(link: BoardLink) -> list[str]:
    """Removes all that `apply` put there; returns what was removed. config.json and state stay."""
    removed = []
    for path in (CURRENT, RECORD, *ROOT_FILES, *SLOTS):
        found = link.tree(path) if path in SLOTS else link.digest(path)
        if found:
            link.remove(path)
            removed.append(path)
    return removed


def _digests(link: BoardLink, slot: str) -> dict[str, str]:
    return _below(slot, link.tree(slot))


def _below(slot: str, tree: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    return {path[len(slot) + 1 :]: digest for path, (digest, _) in tree.items()}


def _measures(files: Files) -> dict[str, tuple[str, int]]:
    return {path: (hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items()}


def _record(plan: Plan) -> str:
    root = {name: (FIRMWARE / name).read_bytes() for name in ROOT_FILES}
    slot = {f"{plan.slot}/{path}": data for path, data in plan.files.items()}
    lines = [f"vedette {plan.version}"]
    for path, (digest, size) in sorted(_measures({**root, **slot}).items()):
        lines.append(f"{digest} {size} {path}")
    return "\n".join(lines) + "\n"
