"""`vedette doctor`, `estimate` and `twin diff`: what is not well, and what it will cost."""

from __future__ import annotations

import json
import os

import pytest
from deskfixture import Desk
from hubfixture import LocalHub, hub  # noqa: F401 - fixture
from test_provision import at_hub, provision  # noqa: F401 - fixture


def examined(desk: Desk, code: int = 0) -> dict[str, dict[str, str]]:
    document = json.loads(desk.vedette("doctor", "--json", code=code))
    return {each["name"]: each for each in document["findings"]}


def states(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: each["state"] for name, each in found.items()}


def test_all_is_well(desk: Desk, at_hub: LocalHub) -> None:  # noqa: F811
    provision(desk)
    found = examined(desk)
    assert set(states(found).values()) == {"good"}
    assert set(found) == {
        "port", "board", "firmware", "heap", "flash", "clock", "agent", "config.json", "CA",
        "key", "TLS", "hub", "device",
    }  # fmt: skip
    assert "unix" in found["board"]["says"]


@pytest.mark.slow
def test_what_is_not_well_is_told(desk: Desk, at_hub: LocalHub) -> None:  # noqa: F811
    provision(desk)
    path = desk.flash / "config.json"
    config = json.loads(path.read_text())
    config["connection_string"] = (
        f"HostName={at_hub.host}:{at_hub.port};DeviceId=board;SharedAccessKey=AAAA"
    )
    path.write_text(json.dumps(config))
    (desk.flash / "v-a" / "vedette" / "log.mpy").write_bytes(b"else")
    found = examined(desk, code=1)
    assert found["agent"]["state"] == "bad" and "v-a/vedette/log.mpy" in found["agent"]["says"]
    assert found["device"]["state"] == "bad" and "key is not the hub's" in found["device"]["says"]
    (desk.flash / "ca0.der").write_bytes(b"\x30\x00")
    found = examined(desk, code=1)
    assert states(found)["CA"] == "bad" and states(found)["TLS"] == "bad"


@pytest.mark.slow
def test_a_bare_board_and_no_hub(bare: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_HUB_STATE", "/nowhere")
    found = examined(bare, code=1)
    assert states(found)["agent"] == "warning" and states(found)["config.json"] == "bad"
    assert "vedette provision" in found["config.json"]["next_step"]
    assert states(found)["hub"] == "bad" and "key" not in found


@pytest.mark.slow
def test_what_is_damaged_on_the_board_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDETTE_HUB_STATE", "/nowhere")
    desk.configure(ca=None)
    (desk.flash / "deployed.txt").write_text("vedette 0.1.0\ntorn\n")
    found = examined(desk, code=1)
    assert states(found)["CA"] == "bad" and states(found)["TLS"] == "skipped"
    assert "torn is not what was deployed" in found["agent"]["says"]


@pytest.mark.slow
def test_the_twin_is_compared(desk: Desk, at_hub: LocalHub) -> None:  # noqa: F811
    name = f"twin-{os.urandom(3).hex()}"
    (desk.project / "config.toml").write_text(f'board = "unix"\ndevice = "{name}"\n')
    provision(desk)
    at_hub.set_twin(name, {"microAgent": {"Message_Format": "objects"}})
    desk.deploy()
    at_hub.wait_reported(
        name, lambda twin: twin.get("microAgent", {}).get("Message_Format") == "objects"
    )
    assert desk.vedette("twin", "diff", name) == ""
    at_hub.set_twin(name, {"microAgent": {"Message_Format": "rows"}})
    at_hub.wait_reported(name, lambda twin: twin["microAgent"]["latest_state"] == "failed")
    document = json.loads(desk.vedette("twin", "diff", name, "--json", code=1))
    (difference,) = document["differences"]
    assert difference["key"] == "Message_Format" and difference["desired"] == "rows"
    assert "must be one of columns, objects" in difference["reason"]


@pytest.mark.slow
def test_a_twin_that_has_no_settings_to_compare(desk: Desk, at_hub: LocalHub) -> None:  # noqa: F811
    at_hub.create_device("odd")
    at_hub.set_twin("odd", {"microAgent": '{"Message_Format": '})
    said = desk.vedette("twin", "diff", "odd", code=1)
    assert "microAgent of the desired properties is no object" in said


@pytest.mark.slow
def test_estimate(desk: Desk) -> None:
    config = desk.project / "config.toml"
    config.write_text('board = "RPI_PICO2_W"\ndevice = "d"\n')
    plain = json.loads(desk.vedette("estimate", str(desk.project), "--json"))
    # The same day in simulated time takes 14: `make bench`, agent.day_units.
    assert 12 <= plain["units_a_day"] <= 16 and plain["tier"] == "F1"
    assert plain["heap_fits"] is True and plain["flash_fits"] is True
    config.write_text('board = "NUCLEO_F767ZI"\ndevice = "d"\n')
    small = json.loads(desk.vedette("estimate", str(desk.project), "--json"))
    assert small["flash"] > small["flash_of_board"] == 98304 and small["flash_fits"] is False
    assert "ROMFS" in desk.vedette("estimate", str(desk.project))
    config.write_text(
        'board = "ESP32_GENERIC"\ndevice = "d"\n[settings]\n'
        'CollectorsCore_PriorityIntervals = "1,2,4"\nMessage_Format = "objects"\n'
    )
    often = json.loads(desk.vedette("estimate", str(desk.project), "--json", "--devices", "9000"))
    assert often["messages_a_day"] == 720 and often["units_a_day"] > 720 * 2
    assert often["tier"] == "S3"
    config.write_text(
        'board = "ESP32_GENERIC"\ndevice = "d"\n[settings]\n'
        + "".join(
            f"{name}_Disabled = true\n"
            for name in ("NetworkActivity", "SystemInformation", "Baseline", "ListeningPorts",
                         "Heartbeat", "Statistics")
        )
    )  # fmt: skip
    nothing = json.loads(desk.vedette("estimate", str(desk.project), "--json"))
    assert nothing["messages_a_day"] == 0 and nothing["units_a_day"] == 0
