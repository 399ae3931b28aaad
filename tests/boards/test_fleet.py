"""`vedette fleet`: the same for many devices."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from deskfixture import COMMAND, Desk
from typer.testing import CliRunner
from vedette_tools import fleet
from vedette_tools.cli import build
from vedette_tools.errors import FAILED, PARTLY, CommandError

TICKING = """
import asyncio
async def main():
    while True:
        print("tick")
        await asyncio.sleep_ms(50)
"""


def vedette(*words: object, code: int = 0) -> str:
    args = ["fleet", *map(str, words)]
    done = CliRunner().invoke(build(), args, env={"COLUMNS": "100"}, prog_name="vedette")
    assert done.exit_code == code, done.output
    return str(done.stdout if code in (0, PARTLY) else done.stderr)


def projects(folder: Path, *names: str) -> Path:
    """A list of devices, each with a project of its own."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "config.toml").write_text(f'board = "unix"\ndevice = "{name}"\n')
    path = folder / "devices.csv"
    path.write_text("device,at\n" + "".join(f"{name},{folder / name}\n" for name in names))
    return path


@pytest.mark.slow
def test_a_failure_is_taken_up_again(tmp_path: Path) -> None:
    path = projects(tmp_path, "a", "b")
    bad = tmp_path / "b" / "app.py"
    bad.write_text("def (:")
    table = vedette(path, "check", "{at}", code=PARTLY).splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["a", "0"], ["b", "4"]]
    bad.unlink()
    lines = [json.loads(line) for line in vedette("--json", path, "check", "{at}").splitlines()]
    states = {line["device"]: line["report"].get("state") for line in lines}
    assert states == {"a": "done earlier", "b": None}
    # It is done for all: the next time it begins anew.
    assert "done earlier" not in vedette(path, "check", "{at}")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b", "devices.csv"]


@pytest.mark.slow
def test_another_command_has_its_own_progress(tmp_path: Path) -> None:
    path = projects(tmp_path, "a", "b")
    (tmp_path / "b" / "app.py").write_text("def (:")
    vedette(path, "check", "{at}", code=PARTLY)
    assert "done earlier" not in vedette(path, "estimate", "{at}", code=PARTLY)
    assert vedette("--again", path, "check", "{at}", code=PARTLY).count("done earlier") == 0


@pytest.mark.slow
def test_boards_are_deployed_by_their_ports(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.yaml"
    path.write_text(
        f"- device: here\n  port: {desk.board.port}\n- {{device: gone, port: /none}}\n"
    )
    desk.write_app("by fleet")
    lines = vedette("--json", path, "deploy", desk.project, code=PARTLY).splitlines()
    here, gone = (json.loads(line) for line in lines)
    assert (here["code"], here["report"]["state"]) == (0, "runs")
    assert gone["code"] == 3 and "/none cannot be opened" in gone["report"]["error"]["what"]


def test_progress_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    path = projects(tmp_path, "a")
    (tmp_path / "devices.csv.done.new").mkdir()  # nothing can be written there
    said = vedette(path, "check", "{at}", code=FAILED)
    assert "cannot keep what is done" in said and "devices.csv.done.json" in said


def test_a_list_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("device,port\r\nküche,p\r\n".encode("utf-8-sig"))
    assert fleet.read(path) == [{"device": "küche", "port": "p"}]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("d.csv", "", "no list"),
        ("d.csv", "device\n", "no list"),
        ("d.csv", "name\na\n", "entry 1 has no device"),
        ("d.csv", "device,port\na\n", "as many columns"),
        ("d.csv", "device\na,b\n", "as many columns"),
        ("d.csv", "device\na\na\n", "a is in it twice"),
        ("d.yaml", "a: b", "no list"),
        ("d.yaml", "- a", "entry 1 has no device"),
        ("d.yaml", "- {a", "line 1"),
        ("d.yaml", "[" * 10_000, "recursion"),
    ],
)
def test_a_list_that_does_not_do(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(CommandError) as error:
        fleet.read(path)
    assert says in error.value.why


def watched(path: Path, *words: object, until: Callable[[str], bool]) -> tuple[list[str], int]:
    """What `vedette fleet` shows until it shows what is asked for, and its exit code."""
    with subprocess.Popen(
        [COMMAND, "fleet", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=path.parent,
    ) as process:
        assert process.stdout
        limit = threading.Timer(60, process.kill)
        limit.start()
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if until("\n".join(lines)):
                process.send_signal(signal.SIGINT)
                break
        code = process.wait(20)
        limit.cancel()
        return lines, code


@pytest.mark.slow
def test_boards_are_watched_until_the_user_has_enough(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(f"device,port\nhere,{desk.board.port}\naway,/none\n")
    (desk.project / "app.py").write_text(TICKING)
    vedette(path, "deploy", desk.project, code=PARTLY)

    def both(text: str) -> bool:
        return "tick" in text and "waiting for it" in text

    lines, code = watched(path, path, "monitor", until=both)
    assert code == 0
    assert "here  tick" in lines
    assert "away  -- /none is not there; waiting for it --" in lines
    lines, code = watched(path, "--json", path, "monitor", until=both)
    told = [json.loads(line) for line in lines]
    assert code == 0 and {"here", "away"} == {each["device"] for each in told}
    assert any((each["text"], each["level"]) == ("tick", None) for each in told)


@pytest.mark.slow
def test_boards_are_run_and_one_that_cannot_be_is_told(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    bad = projects(tmp_path, "bad").parent / "bad"
    (bad / "app.py").write_text("def (:")
    path.write_text(f"device,port,at\nhere,{desk.board.port},{desk.project}\nbad,/none,{bad}\n")
    (desk.project / "app.py").write_text(TICKING)
    lines, code = watched(
        path, path, "run", "{at}", until=lambda text: "tick" in text and "bad " in text
    )
    assert code == PARTLY
    assert "here  tick" in lines
    assert any(line.startswith("bad   ") and "app.py" in line for line in lines)


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    path = projects(tmp_path, "a")
    assert "no command for a fleet" in vedette(path, "twin", code=2)
    assert "'board' is no column; there are device, at" in vedette(
        path, "check", "{board}", code=4
    )
    said = vedette(path, "check", "{", code=4)
    assert "Single '{'" in said and "no column" not in said
