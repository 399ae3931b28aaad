"""Boards on serial lines, without boards: see serialboard.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from conftest import LANES, ROOT
from serialboard import SerialBoard
from typer.testing import CliRunner
from vedette_tools.cli import build

COMMAND = ROOT / ".venv" / "bin" / "vedette"
STATE = "vedette-state/"
SECRET = "c2VjcmV0LWtleQ=="
# Nothing listens on port 1: the agent runs and goes on trying.
CONFIG = {
    "connection_string": f"HostName=127.0.0.1:1;DeviceId=board;SharedAccessKey={SECRET}",
    "ca": "ca.der",
}


class Desk:
    """A board, and a person with the `vedette` command."""

    def __init__(self, folder: Path, lane: str = "64") -> None:
        self.board = SerialBoard(folder / "flash", LANES[lane], folder / "port")
        self.flash = self.board.folder
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / "config.toml").write_text('board = "unix"\ndevice = "board"\n')

    def give_rom(self, size: int) -> None:
        """From its next start on, the board has a ROMFS partition."""
        (self.flash.parent / "rom").write_bytes(b"\xff" * size)

    def write_app(self, says: str) -> None:
        (self.project / "app.py").write_text(f"async def main():\n    print({says!r})\n")

    def configure(self, **more: object) -> None:
        (self.flash / "config.json").write_text(json.dumps({**CONFIG, **more}))
        (self.flash / "ca.der").write_bytes(b"\x30\x00")

    def files(self) -> dict[str, bytes]:
        """All that is on its flash but what the agent keeps for itself."""
        found = {
            path.relative_to(self.flash).as_posix(): path.read_bytes()
            for path in sorted(self.flash.rglob("*"))
            if path.is_file()
        }
        return {path: data for path, data in found.items() if not path.startswith(STATE)}

    def vedette(self, *words: str, code: int = 0) -> str:
        """What a command says: on stdout, or on stderr where it fails (without --json)."""
        done = self.run(*words)
        assert done.exit_code == code, done.output
        assert SECRET not in done.output and "Traceback" not in done.output
        return str(done.stderr if code and "--json" not in words else done.stdout)

    def run(self, *words: str) -> Result:
        env = {"VEDETTE_PORT": str(self.board.port), "COLUMNS": "90"}
        return CliRunner().invoke(build(), words, env=env, prog_name="vedette")

    def deploy(self, *words: str) -> dict[str, object]:
        return json.loads(self.vedette("deploy", str(self.project), "--json", *words))


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flash of a board that has a version with an application that says `first`."""
    desk = Desk(tmp_path_factory.mktemp("deployed"))
    desk.write_app("first")
    desk.configure()
    try:
        assert desk.deploy()["state"] == "runs"
    finally:
        desk.board.close()
    return desk.flash


NO_RAW_REPL = "Debian's 32-bit MicroPython has no raw REPL, which mpremote speaks with a board"


@pytest.fixture(params=["64", pytest.param("32", marks=pytest.mark.skip(reason=NO_RAW_REPL))])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """A desk with a board that has nothing on it."""
    desk = Desk(tmp_path, request.param)
    yield desk
    desk.board.close()


@pytest.fixture
def desk(tmp_path: Path, deployed: Path) -> Iterator[Desk]:
    """A desk with a board that runs, and its project."""
    shutil.copytree(deployed, tmp_path / "flash")
    desk = Desk(tmp_path)
    desk.write_app("first")
    desk.board.wait_for("app.py ended")
    yield desk
    desk.board.close()
