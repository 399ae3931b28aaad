"""main.py as a board runs it: config.json and its errors, app.py beside the agent."""

from __future__ import annotations

import pytest
from mainpy import GOOD, SECRET, Board


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "config.json cannot be read"),
        ("", "line 1, column"),
        ('{\n "connection_string": "x",\n "ca": y}', "line 3, column 9"),
        ("[]", "must be an object"),
        ({"ca": "ca.der"}, "give either connection_string or provisioning"),
        ({**GOOD, "colour": 1}, "colour is no key"),
        ({**GOOD, "ca": 5}, "ca must be a path"),
        ({**GOOD, "ca": []}, "ca must be a path"),
        ({**GOOD, "watchdog": True}, "watchdog must be an integer"),
        ({**GOOD, "connection_string": "HostName=h"}, "no DeviceId"),
        ({**GOOD, "connection_string": SECRET + ";"}, "credentials"),
        (" " * 5000, "longer than 4096"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(
    board: Board, config: str | dict | None, said: str
) -> None:
    code, output = board.run(config)
    assert code == 1 and said in output, output
    assert output.startswith("vedette error: the agent does not run: ")
    assert output.count("\n") == 1 and SECRET not in output


def test_the_application_runs_even_where_the_agent_cannot(board: Board) -> None:
    code, output = board.run("{", "async def main():\n    print('app runs')")
    assert code == 1 and "app runs" in output and "the agent does not run" in output
    assert "app.py ended" in output and "goes on" not in output


def test_the_agent_goes_on_when_the_application_ends(board: Board) -> None:
    app = "async def main():\n    print('app runs')"
    code, output = board.run(GOOD, app, until="hub: certificate: ")
    assert code == 0 and "app runs" in output and SECRET not in output
    assert "app.py ended; the agent goes on" in output


@pytest.mark.parametrize(
    ("app", "seen"),
    [
        ("async def main():\n    1 / 0", "ZeroDivisionError"),
        ("import nothing_like_this\nasync def main():\n    pass", "ImportError"),
        ("async def main(:", "SyntaxError"),
        ("x = 1", "AttributeError"),
    ],
)
def test_the_agent_goes_on_when_the_application_fails(board: Board, app: str, seen: str) -> None:
    code, output = board.run(GOOD, app, until="hub: ")
    assert code == 0 and seen in output, output
    assert "app.py ended with an error; the agent goes on" in output


def test_without_an_application_the_agent_runs_alone(board: Board) -> None:
    code, output = board.run(GOOD, until="hub: ")
    assert code == 0 and "app.py" not in output


def test_the_tap_is_in_place_when_the_application_is_imported(board: Board) -> None:
    app = """
import socket
from vedette import tap

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"x", socket.getaddrinfo("127.0.0.1", 9)[0][-1])
print("flows:", tap.table.live)


async def main():
    pass
"""
    _, output = board.run(GOOD, app, until="hub: ")
    assert "flows: 1" in output
