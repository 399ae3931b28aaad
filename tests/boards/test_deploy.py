"""`vedette deploy` to the real MicroPython over a serial line: mpremote as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from deskfixture import Desk
from vedette_tools import deployment, mpy
from vedette_tools.board_link import BoardLink


def app_says(desk: Desk) -> str:
    """Which application runs beside the agent after the board was switched on."""
    desk.board.power_cycle()
    lines = desk.board.wait_for("app.py ended")
    assert "vedette info: version 0.1.0 runs" in lines
    (word,) = {"first", "second", "third"} & set(lines)
    return word


def test_what_is_on_a_board_is_listed(deployed: Path) -> None:
    first, *lines = (deployed / "deployed.txt").read_text().splitlines()
    assert first == "vedette 0.1.0"
    listed = set()
    for line in lines:
        digest, size, path = line.split(" ")
        data = (deployed / path).read_bytes()
        assert (digest, int(size)) == (hashlib.sha256(data).hexdigest(), len(data))
        listed.add(path)
    assert {"boot.py", "main.py", "v-a/app.mpy", "v-a/vedette/agent.mpy"} <= listed
    files = {path.relative_to(deployed).as_posix() for path in deployed.rglob("*.*py")}
    assert files == listed


def test_a_chip_is_sent_no_port_to_a_host() -> None:
    host, chip = (set(deployment.files_for(march, None)) for march in ("x64", "armv7m"))
    assert host - chip == set(mpy.HOST_ONLY) and not chip - host
    assert "vedette/ports/board.mpy" in chip


@pytest.mark.slow
def test_the_first_version(bare: Desk) -> None:
    bare.write_app("first")
    report = bare.deploy()
    assert report["state"] == "unconfigured" and "vedette provision" in report["says"]
    bare.configure()
    assert app_says(bare) == "first"


def test_a_change_goes_alone(desk: Desk) -> None:
    desk.write_app("second")
    report = desk.deploy()
    assert report["send"] == ["app.mpy"] and report["root"] == [] and report["bytes"] < 100
    assert len(report["copy"]) > 30 and report["state"] == "runs"
    assert app_says(desk) == "second"
    # The version before is still there: what it has in common with the next is not sent again.
    desk.write_app("third")
    report = desk.deploy()
    assert report["send"] == ["app.mpy"] and report["copy"] == [] and len(report["keep"]) > 30
    assert app_says(desk) == "third"


@pytest.mark.slow
def test_what_is_gone_from_the_project_is_removed(desk: Desk) -> None:
    (desk.project / "helper.py").write_text("")
    desk.deploy()
    (desk.project / "helper.py").unlink()
    desk.deploy()
    desk.write_app("third")
    assert desk.deploy()["drop"] == ["helper.mpy"]


def test_nothing_to_do(desk: Desk) -> None:
    before = desk.files()
    assert desk.deploy()["state"] == "unchanged"
    assert "already" in desk.vedette("deploy", str(desk.project))
    assert desk.files() == before


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    before = desk.files()
    desk.write_app("second")
    text = desk.vedette("deploy", str(desk.project), "--dry-run")
    assert "  send    app.mpy\n" in text and "would go to v-b" in text
    assert desk.files() == before
    desk.board.wait_for("runs")  # it was interrupted, and goes on


@pytest.mark.parametrize("after", [9500])
def test_a_cut_line_leaves_the_version_before(desk: Desk, after: int) -> None:
    desk.write_app("second")
    (desk.project / "big.py").write_text("BIG = %r" % ("x" * 4000))
    desk.board.cut_after(after)
    error = desk.vedette("deploy", str(desk.project), code=3)
    assert error.startswith("error: the board on ") and "next: " in error
    desk.board.plug()
    assert app_says(desk) == "first"
    assert desk.deploy()["state"] == "runs"
    assert app_says(desk) == "second"


@pytest.mark.parametrize("torn", [True, False])
def test_a_board_without_a_whole_current_starts(desk: Desk, torn: bool) -> None:
    (desk.flash / "current").write_text("") if torn else (desk.flash / "current").unlink()
    assert app_says(desk) == "first"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_line_cut_anywhere_leaves_one_version_or_the_other(desk: Desk) -> None:
    seen = set()
    before = desk.files()
    desk.write_app("second")
    for after in range(200, 12000, 250):
        for path, data in before.items():
            (desk.flash / path).write_bytes(data)
        desk.board.cut_after(after)
        done = desk.run("deploy", str(desk.project))
        assert done.exit_code == (0 if desk.board.plugged else 3), done.output
        desk.board.plug()
        seen.add(app_says(desk))
    assert seen == {"first", "second"}


def test_a_version_that_does_not_come_up_is_rolled_back(desk: Desk) -> None:
    before = desk.files()
    (desk.project / "asyncio.py").write_text("raise ValueError('no loop')")
    error = desk.vedette("deploy", str(desk.project), code=5)
    assert "the one before is in force" in error and "no loop" in error
    after = desk.files()
    for path in ("current", "deployed.txt", "boot.py", "main.py"):
        assert after[path] == before[path]
    assert app_says(desk) == "first"


@pytest.mark.slow
def test_a_first_version_that_does_not_come_up_is_told(bare: Desk) -> None:
    bare.configure()
    bare.write_app("first")
    (bare.project / "asyncio.py").write_text("raise ValueError('no loop')")
    error = bare.vedette("deploy", str(bare.project), code=1)
    assert "there is none before it" in error and "no loop" in error


@pytest.mark.slow
def test_a_version_in_romfs(desk: Desk) -> None:
    desk.give_rom(256 << 10)
    desk.board.power_cycle()
    desk.write_app("second")
    report = desk.deploy("--romfs")
    assert report["state"] == "runs" and report["slot"] == "rom"
    files = desk.files()
    assert files["current"] == b"rom" and b" rom/app.mpy\n" in files["deployed.txt"]
    assert app_says(desk) == "second"
    assert desk.deploy("--romfs")["state"] == "unchanged"
    desk.write_app("third")
    assert desk.deploy()["state"] == "runs"
    assert app_says(desk) == "third"


@pytest.mark.slow
def test_a_version_in_romfs_that_does_not_come_up_is_rolled_back(desk: Desk) -> None:
    desk.give_rom(256 << 10)
    desk.board.power_cycle()
    (desk.project / "asyncio.py").write_text("raise ValueError('no loop')")
    assert "no loop" in desk.vedette("deploy", str(desk.project), "--romfs", code=5)
    assert app_says(desk) == "first"


@pytest.mark.parametrize(("size", "says"), [(0, "has no ROMFS"), (4096, "does not fit")])
def test_a_romfs_that_does_not_do_is_told(desk: Desk, size: int, says: str) -> None:
    if size:
        desk.give_rom(size)
        desk.board.power_cycle()
    before = desk.files()
    assert says in desk.vedette("deploy", str(desk.project), "--romfs", code=4)
    assert desk.files() == before


@pytest.mark.slow
def test_a_configuration_that_the_agent_refuses_is_told(desk: Desk) -> None:
    desk.configure(colour=1)
    desk.write_app("second")
    report = desk.deploy()
    assert report["state"] == "refuses" and "colour" in report["says"]


@pytest.mark.slow
def test_failed_starts_of_the_version_before_are_forgotten(desk: Desk) -> None:
    state = desk.flash / "vedette-state" / "starts.json"
    state.write_text(json.dumps({"count": 3, "error": None, "where": None, "safe_mode": False}))
    desk.write_app("second")
    desk.deploy()
    assert not state.exists()


@pytest.mark.slow
def test_a_watchdog_is_fed_meanwhile(desk: Desk) -> None:
    (desk.flash / "machine.py").write_text(
        "class WDT:\n"
        "    def __init__(self, timeout):\n"
        "        self.timeout = timeout\n"
        "    def feed(self):\n"
        "        with open('fed', 'a') as file:\n"
        "            file.write('%d\\n' % self.timeout)\n"
    )
    desk.configure(watchdog=8)

    def fed(task: Callable[..., object], *args: object) -> int:
        """How often it is fed during a task."""
        (desk.flash / "fed").write_text("")
        task(*args)
        lines = (desk.flash / "fed").read_text().splitlines()
        assert set(lines) <= {"8000"}
        return len(lines)

    with BoardLink(str(desk.board.port)) as link:
        assert fed(link.tree, "v-a") > 70
        assert fed(link.write, "large", bytes(10_000)) >= 6
        assert fed(link.copy, "large", "larger") >= 19
        assert fed(link.remove, "v-a") > 70


@pytest.mark.slow
def test_a_watchdog_that_is_none_is_in_nobodys_way(desk: Desk) -> None:
    (desk.flash / "machine.py").write_text(
        "class WDT:\n    def __init__(self, timeout):\n        0 + timeout\n"
    )
    desk.configure(watchdog="8")
    with BoardLink(str(desk.board.port)) as link:
        assert link.read("config.json")


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("vedette.py", "", 4, "vedette is a part of the agent"),
        ("config.toml", 'board = "RPI_PICO_W"\ndevice = "d"\n', 4, "is no RPI_PICO_W"),
        ("main.py", "", 4, "a part of the agent"),
        ("app.py", "def main(:\n", 4, "app.py:1: SyntaxError"),
    ],
)
def test_a_project_that_cannot_be_deployed(
    desk: Desk, name: str, text: str, code: int, says: str
) -> None:
    (desk.project / name).write_text(text)
    before = desk.files()
    words = ("deploy", str(desk.project), "--json")
    error = json.loads(desk.vedette(*words, code=code))
    assert says in json.dumps(error["error"])
    assert desk.files() == before


@pytest.mark.slow
def test_uninstall(desk: Desk) -> None:
    assert "v-a" in desk.vedette("uninstall")
    assert {path.split("/")[0] for path in desk.files()} == {
        "ca.der", "config.json",
    }  # fmt: skip
    assert desk.vedette("uninstall") == "there was nothing to remove\n"


def test_no_board(desk: Desk) -> None:
    error = desk.vedette("deploy", "--port", "/dev/no-such-port", code=3)
    assert "/dev/no-such-port cannot be opened" in error
