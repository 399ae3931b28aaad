"""`vedette` as a person uses it: in a terminal (tmux), with a shell, by keys."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deskfixture import COMMAND, Desk
from hubfixture import wait_for

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")

PROMPT = "ready> "
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    def __init__(self, folder: Path, **environment: str) -> None:
        self._tmux = ["tmux", "-L", f"vedette-{os.getpid()}-{folder.name}", "-f", "/dev/null"]
        kept = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR", "COLUMNS")}
        path = f"{COMMAND.parent}:{os.environ['PATH']}"
        self._env = {**kept, "PATH": path, "PS1": PROMPT, "HOME": str(folder), **environment}
        self._run(
            *("new-session", "-d", "-x", "100", "-y", "40", "-c", str(folder)),
            *("bash", "--norc", "--noprofile", "-i"),
        )
        self.wait(PROMPT.strip())

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], env=self._env, capture_output=True, text=True, timeout=10
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        """Type a text, then press these keys."""
        if text:
            self._run("send-keys", "-l", text)
        if keys:
            self._run("send-keys", *keys)

    def command(self, text: str) -> None:
        self.type(text, "Enter")

    def screen(self, *, coloured: bool = False) -> str:
        return self._run("capture-pane", "-p", *(["-e"] if coloured else []))

    def wait(self, text: str, *, coloured: bool = False) -> str:
        return str(wait_for(lambda: self.screen(coloured=coloured), lambda said: text in said))

    def record(self, log: Path) -> Path:
        """From now on all that is shown goes there too, however short it is seen."""
        self._run("pipe-pane", f"cat > {log}")
        return log

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_init_asks(terminal: Terminal, tmp_path: Path) -> None:
    terminal.command("vedette init kitchen")
    terminal.wait("board [unix]:")
    terminal.command("RPI_PICO_W")
    terminal.wait("device id [kitchen]:")
    terminal.command("")
    terminal.wait("Wi-Fi name:")
    terminal.command("at home")
    assert "vedette deploy kitchen" in terminal.wait("made kitchen/config.toml").replace("\n", "")
    text = (tmp_path / "kitchen" / "config.toml").read_text()
    assert 'board = "RPI_PICO_W"\ndevice = "kitchen"\n' in text and 'ssid = "at home"' in text
    terminal.command("clear; vedette check kitchen")
    terminal.wait("config.toml is right")


def test_a_question_can_be_interrupted(terminal: Terminal) -> None:
    terminal.command("vedette init kitchen; echo code=$?")
    terminal.wait("board [unix]:")
    terminal.type("", "C-c")
    terminal.wait("code=130")


@pytest.mark.slow
def test_the_shell_completes(terminal: Terminal) -> None:
    terminal.command('eval "$(vedette --show-completion bash)"; echo done')
    terminal.wait("\ndone")
    terminal.type("clear; vedette fl", "Tab", "Tab")
    said = terminal.wait("fleet")
    assert "flash" in said
    terminal.type("ee", "Tab")
    terminal.wait("vedette fleet")
    terminal.type("", "C-u")
    terminal.type("clear; vedette flash RPI_PICO2", "Tab")
    terminal.wait("RPI_PICO2_W")


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["", "NO_COLOR=1 "])
def test_colours_are_for_who_wants_them(terminal: Terminal, wish: str) -> None:
    terminal.command(
        f"clear; {wish}vedette doctor --port /none; {wish}vedette --help; echo fi''nished"
    )
    said = terminal.wait("finished", coloured=True)
    colours = {code for code in COLOUR.findall(said) if re.search(r"\b3[0-7][;m]", code)}
    assert bool(colours) == (not wish), colours


@pytest.mark.slow
def test_a_fleet_goes_on_where_it_was_interrupted(terminal: Terminal, tmp_path: Path) -> None:
    terminal.command("vedette init p --board unix --device d")
    terminal.wait("made p/config.toml")
    names = [f"device-{number}" for number in range(12)]
    (tmp_path / "list.csv").write_text("\n".join(["device", *names]))
    done = tmp_path / "list.csv.done.json"
    terminal.command("clear; vedette fleet --jobs 1 list.csv check p; echo code=$?")
    wait_for(lambda: done.exists() and done.read_text(), lambda text: "device-1" in str(text))
    terminal.type("", "C-c")
    terminal.wait("code=130")
    terminal.command("clear; vedette fleet list.csv check p; echo code=$?")
    said = terminal.wait("code=0")
    assert 2 <= said.count("done earlier") < len(names) and not done.exists()


@pytest.mark.slow
def test_what_takes_long_shows_how_far_it_is(
    terminal: Terminal, bare: Desk, tmp_path: Path
) -> None:
    bare.write_app("first")
    log = terminal.record(tmp_path / "shown")
    terminal.command(f"clear; vedette deploy {bare.project} --port {bare.board.port}")
    terminal.wait("sending ━")
    said = terminal.wait("vedette provision")
    assert "━" not in said and "starting" not in said  # it is gone when it is done
    steps = re.findall("comparing|sending|starting the board", log.read_text())
    assert list(dict.fromkeys(steps)) == ["comparing", "sending", "starting the board"]
