"""`vedette init` and `vedette check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from vedette_tools import boards, project
from vedette_tools.cli import build
from vedette_tools.errors import CommandError

GOOD = 'board = "ESP32_GENERIC"\ndevice = "d"\n'


def vedette(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(build(), [str(word) for word in words], prog_name="vedette")
    assert done.exit_code == code, done.output
    return str(done.output)


def written(folder: Path, text: str, app: str = "") -> Path:
    (folder / "config.toml").write_text(text)
    (folder / "app.py").write_text(app)
    return folder


@pytest.mark.parametrize("board", boards.names())
def test_what_init_makes_is_right(tmp_path: Path, board: str) -> None:
    has_wifi = board != "unix" and "wifi" in boards.load(board).interfaces
    wifi = ("--wifi", 'at "home"') if has_wifi else ()
    vedette("init", tmp_path / "p", "-b", board, "-d", "it's", *wifi)
    made = project.load(tmp_path / "p")
    assert made.board.name == board and made.device == "it's"
    if made.config:
        assert made.config["network"]["type"] in made.board.interfaces
    if wifi:
        assert made.config["network"]["ssid"] == 'at "home"'


def test_init_takes_any_name_of_a_wifi(tmp_path: Path) -> None:
    vedette("init", tmp_path / "p", "-b", "ESP32_GENERIC", "-d", "d", "--wifi", "küche 😀")
    assert project.load(tmp_path / "p").config["network"]["ssid"] == "küche 😀"


def test_the_next_commands_can_be_typed_as_they_stand(tmp_path: Path) -> None:
    said = vedette("init", tmp_path / "my kitchen", "-b", "unix", "-d", "d")
    assert f"`vedette deploy '{tmp_path}/my kitchen'`" in said


def test_init_makes_nothing_that_does_not_do(tmp_path: Path) -> None:
    where = tmp_path / "p"
    said = vedette("init", where, "-b", "NUCLEO_F767ZI", "-d", "d", "--wifi", "s", code=4)
    assert "NUCLEO_F767ZI joins no Wi-Fi" in said and "ethernet" in said
    assert "joins no Wi-Fi" in vedette(
        "init", where, "-b", "unix", "-d", "d", "--wifi", "s", code=4
    )
    assert "'a b' is no id" in vedette("init", where, "-b", "unix", "-d", "a b", code=4)
    assert not where.exists()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    assert "is there already" in vedette("init", tmp_path, "-b", "unix", "-d", "x", code=1)
    assert (tmp_path / "config.toml").read_text() == GOOD


def test_init_asks_only_a_person(tmp_path: Path) -> None:
    assert "give --board" in vedette("init", tmp_path, code=1)
    assert "did you mean ESP32_GENERIC?" in vedette("init", tmp_path, "-b", "ESP32", code=4)


@pytest.mark.parametrize(
    ("more", "line", "says"),
    [
        ("x = \n", 3, "Invalid value"),
        ("boards = 1\n", 3, "boards is no key here; did you mean board?"),
        ("network = 1\n", 3, "network must be a table"),
        ('module = "m n"\n', 3, "module: 'm n' is no id"),
        ('[agent]\ncertificate = ["c", "k"]\n', 4, "keep it out"),
        ("[agent]\n\nwatchdog = true\n", 5, "watchdog must be an integer"),
        ("[agent]\nca = 5\n", 4, "ca must be"),
        ('[agent]\nwatchdog = "8"\n', 4, "watchdog must be an integer"),
        ("[agent]\nwatchdog = 2026-01-01\n", 4, "watchdog must be an integer"),
        ("[agent]\ncolour = 1\n", 4, "colour is no key; there are ca, journal, outbox_size"),
        ("[agent]\nwatchdg = 1\n", 4, "watchdg is no key; did you mean watchdog?"),
        ('[network]\ntype = "wifi"\nssid = "s"\ncontry = "DE"\n', 6, "did you mean country?"),
        ('[network]\ntype = "wifi"\n', 3, "ssid is missing"),
        ('[network]\ntype = "ethernet"\n', 4, "has wifi, no ethernet"),
        ('[network]\ntype = "wifi"\nssid = "s"\npassword = "p"\n', 6, "keep it out"),
        ("[provisioning]\n", 3, "scope is missing"),
        ('[provisioning]\nscope = "0ne1"\nhost = "h:x"\n', 5, 'must be "host" or "host:port"'),
        ('[provisioning]\nscope = "0ne1"\nkey = "k"\n', 5, "keep it out"),
        ('module = "m"\n[provisioning]\nscope = "0ne1"\n', 3, "knows devices only"),
        ("[settings]\n# a comment\nHeartbeat_Disabled = 1\n", 5, "must be true or false"),
        ("[settings]\nHeartbeat_Disable = true\n", 4, "did you mean Heartbeat_Disabled?"),
        ("[settings]\nProcess_CacheSize = 64\n", 4, "has no processes: only Linux has"),
        ("[settings]\nNetworkActivity_CacheSize = 2026-01-01\n", 4, "must be an integer"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, more: str, line: int, says: str) -> None:
    folder = written(tmp_path, GOOD + more)
    (found,) = project.check(folder)
    assert (found.file, found.line) == ("config.toml", line) and says in found.what


def test_the_application_is_looked_at(tmp_path: Path) -> None:
    folder = written(tmp_path, GOOD, "import x\n\nasync def main(:\n")
    (found,) = project.check(folder)
    assert (found.file, found.line) == ("app.py", 3)


def test_what_does_not_go_onto_a_board_is_not_looked_at(tmp_path: Path) -> None:
    hidden = written(tmp_path, GOOD) / ".venv" / "lib"
    hidden.mkdir(parents=True)
    (hidden / "newer.py").write_text("match x:\n    case 1: pass\n")
    assert project.check(tmp_path) == []


def test_all_mistakes_at_once_in_order(tmp_path: Path) -> None:
    text = GOOD + "[agent]\nwatchdog = -1\n[settings]\nMessage_Format = 1\nX_Y = 1\n"
    found = project.check(written(tmp_path, text))
    assert [each.line for each in found] == [4, 6, 7]
    lines = vedette("check", tmp_path, code=4).splitlines()
    assert lines == [f"{tmp_path}/{each}" for each in found]


def test_a_right_project(tmp_path: Path) -> None:
    assert "is right" in vedette("check", written(tmp_path, GOOD))
    assert json.loads(vedette("check", tmp_path, "--json")) == {"problems": []}
    assert "vedette init" in vedette("check", tmp_path / "none", code=4)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_project_or_is_told(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "config.toml").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        for problem in project.check(folder):
            assert problem.line >= 1 and problem.what
    except CommandError as error:
        assert error.what.startswith("cannot read ")
