"""`vedette provision`: a board becomes a device of the hub, and its agent reaches it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import certificates
import pytest
from deskfixture import SECRET, Desk
from hubfixture import LocalHub, hub, wait_for  # noqa: F401 - fixture
from vedette_tools import device_certificate

NVS = """
class NVS:
    def __init__(self, namespace):
        self.name = "nvs-" + namespace
    def set_blob(self, key, value):
        with open("%s-%s" % (self.name, key), "wb") as file:
            file.write(value)
    def get_blob(self, key, buffer):
        with open("%s-%s" % (self.name, key), "rb") as file:
            return file.readinto(buffer)
    def commit(self):
        pass
"""


@pytest.fixture
def at_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:  # noqa: F811
    for key, value in hub.env.items():
        monkeypatch.setenv(key, value)
    return hub


def provision(desk: Desk, *words: str) -> dict[str, str]:
    report: dict[str, str] = json.loads(
        desk.vedette("provision", str(desk.project), "--json", *words)
    )
    return report


def test_from_the_box_to_the_hub(desk: Desk, at_hub: LocalHub) -> None:
    name = f"box-{os.urandom(3).hex()}"
    text = f'board = "unix"\ndevice = "{name}"\n[settings]\nHeartbeat_Disabled = true\n'
    (desk.project / "config.toml").write_text(text)
    report = provision(desk)
    assert report["device"] == name and report["key"] == "config.json"
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    at_hub.wait_reported(name, lambda twin: "microAgent" in twin)
    reported = at_hub.twin(name)["properties"]["reported"]["microAgent"]
    assert reported["Heartbeat_Disabled"] is True


def test_the_local_hubs_root_is_for_no_other_hub(
    desk: Desk,
    at_hub: LocalHub,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VEDETTE_HUB", at_hub.connection["service_connection_string"])
    monkeypatch.setenv("SSL_CERT_FILE", str(at_hub.ca))  # a public authority, as Azure's hub has
    said = desk.vedette("provision", str(desk.project), code=1)
    assert "which roots the board is to have" in said


@pytest.mark.slow
def test_once_more_keeps_the_device(desk: Desk, at_hub: LocalHub) -> None:
    provision(desk)
    first = (desk.flash / "config.json").read_text()
    provision(desk)
    assert (desk.flash / "config.json").read_text() == first


@pytest.mark.slow
def test_a_module_and_another_device(desk: Desk, at_hub: LocalHub) -> None:
    text = 'board = "unix"\ndevice = "d"\nmodule = "m"\n[settings]\nHeartbeat_Disabled = true\n'
    (desk.project / "config.toml").write_text(text)
    provision(desk, "--device", "other")
    config = json.loads((desk.flash / "config.json").read_text())
    assert "DeviceId=other;ModuleId=m;" in config["connection_string"]
    assert at_hub.twin("other", "m")["properties"]["desired"]["Heartbeat_Disabled"] is True


def test_the_key_goes_where_no_file_shows_it(desk: Desk, at_hub: LocalHub) -> None:
    (desk.flash / "esp32.py").write_text(NVS)
    assert provision(desk)["key"] == "NVS"
    config = (desk.flash / "config.json").read_text()
    assert json.loads(config)["connection_string"] == {"nvs": "connection"}
    assert "SharedAccessKey" not in config
    kept = (desk.flash / "nvs-vedette-connection").read_text()
    assert kept.startswith("HostName=localhost:") and "SharedAccessKey=" in kept


def self_provisioning(desk: Desk, scope: str, host: str) -> str:
    """Makes the desk's project one whose device asks the provisioning service; returns its id."""
    name = f"dps-{os.urandom(3).hex()}"
    text = f'board = "unix"\ndevice = "{name}"\n[provisioning]\nscope = "{scope}"\n'
    text += f'host = "{host}"\n[settings]\nHeartbeat_Disabled = true\n'
    (desk.project / "config.toml").write_text(text)
    return name


def at_local_hub(desk: Desk, hub: LocalHub) -> str:  # noqa: F811
    host = f"{hub.connection['dps_host']}:{hub.connection['dps_port']}"
    return self_provisioning(desk, hub.connection["dps_scope"], host)


def registered(hub: LocalHub, name: str) -> dict[str, Any]:  # noqa: F811
    """What a device that provisioned itself reported, once it has."""

    def is_there() -> bool:
        known = hub.service.request("GET", "/vedette/identities")
        return name in [record["deviceId"] for record in known]

    wait_for(is_there, bool)
    reported: dict[str, Any] = hub.wait_reported(name, lambda twin: "microAgent" in twin)
    return reported["microAgent"]


def test_the_device_asks_for_its_hub(desk: Desk, at_hub: LocalHub) -> None:
    name = at_local_hub(desk, at_hub)
    report = provision(desk)
    assert report["scope"] == at_hub.connection["dps_scope"] and report["settings"] is True
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    assert registered(at_hub, name)["Heartbeat_Disabled"] is True
    found = json.loads(desk.vedette("doctor", "--json"))["findings"]
    assert {each["state"] for each in found} == {"good"}


@pytest.mark.slow
def test_once_more_when_the_hub_has_it_already(desk: Desk, at_hub: LocalHub) -> None:
    name = at_local_hub(desk, at_hub)
    provision(desk)
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    registered(at_hub, name)
    # With another key, and settings that are merged.
    path = desk.project / "config.toml"
    path.write_text(path.read_text().replace("true", "false"))
    first = desk.files()["config.json"]
    provision(desk)
    assert desk.files()["config.json"] != first
    at_hub.wait_reported(name, lambda twin: twin["microAgent"]["Heartbeat_Disabled"] is False)


@pytest.mark.slow
def test_the_groups_key_stays_with_its_owner(
    desk: Desk, at_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = at_local_hub(desk, at_hub)
    key = at_hub.connection["dps_group_key"]
    monkeypatch.setenv("VEDETTE_DPS_GROUP_KEY", key)
    assert "initial twin" in desk.vedette("provision", str(desk.project))
    assert all(key.encode() not in data for data in desk.files().values())
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    registered(at_hub, name)


def test_a_provisioning_service_elsewhere(
    desk: Desk, at_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    self_provisioning(desk, "0ne1", "dps.example")
    error = desk.vedette("provision", str(desk.project), code=1)
    assert "local hub of the scope 0ne1" in error and "VEDETTE_DPS_GROUP_KEY" in error
    monkeypatch.setenv("VEDETTE_DPS_KEY", "hush hush")
    error = desk.vedette("provision", str(desk.project), code=1)
    assert "VEDETTE_DPS_KEY is no key" in error and "hush" not in error
    monkeypatch.setenv("VEDETTE_DPS_KEY", SECRET)
    (desk.flash / "esp32.py").write_text(NVS)
    assert provision(desk)["key"] == "NVS"
    config = json.loads((desk.flash / "config.json").read_text())
    assert config["provisioning"]["host"] == "dps.example"
    assert config["provisioning"]["key"] == {"nvs": "registration"}
    assert (desk.flash / "nvs-vedette-registration").read_text() == SECRET
    found = json.loads(desk.vedette("doctor", "--json", code=1))["findings"]
    (key,) = [each for each in found if each["name"] == "key"]
    assert "no hub yet" in key["says"]


def shown(made: certificates.Certificate) -> tuple[str, ...]:
    return "--certificate", str(made.certificate), "--key", str(made.key)


def test_a_certificate_instead_of_a_key(desk: Desk, at_hub: LocalHub, tmp_path: Path) -> None:
    name = f"x509-{os.urandom(3).hex()}"
    (desk.project / "config.toml").write_text(f'board = "unix"\ndevice = "{name}"\n')
    own = certificates.make(tmp_path, name)
    report = provision(desk, *shown(own))
    assert report["key"] == "device-key.der"
    files = desk.files()
    certificate, key = (path.read_bytes() for path in own.der)
    assert files["device.der"] == certificate and files["device-key.der"] == key
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    at_hub.wait_reported(name, lambda twin: "microAgent" in twin)
    found = json.loads(desk.vedette("doctor", "--json"))["findings"]
    assert {each["state"] for each in found} == {"good"}
    assert "certificate" in [each["name"] for each in found]
    assert "can read that file" in desk.vedette("provision", str(desk.project), *shown(own))
    # What would leave a board that the hub refuses is refused here, and the board as it was.
    before = desk.files()
    other = certificates.make(tmp_path, name)
    for words, said in (((), "--certificate and --key"), (shown(other), "another certificate")):
        error = desk.vedette("provision", str(desk.project), *words, code=1)
        assert f"{name} cannot prove itself so" in error and said in error
    assert desk.files() == before
    (desk.flash / "device.der").write_bytes(other.der[0].read_bytes())
    found = json.loads(desk.vedette("doctor", "--json", code=1))["findings"]
    assert "the board's certificate is not the hub's" in [each["says"] for each in found]


def test_a_certificates_key_goes_where_no_file_shows_it(
    desk: Desk, at_hub: LocalHub, tmp_path: Path
) -> None:
    name = f"x509-{os.urandom(3).hex()}"
    (desk.project / "config.toml").write_text(f'board = "unix"\ndevice = "{name}"\n')
    own = certificates.make(tmp_path, name)
    assert provision(desk, *shown(own))["key"] == "device-key.der"
    (desk.flash / "esp32.py").write_text(NVS)
    assert provision(desk, *shown(own))["key"] == "NVS"
    files = desk.files()
    assert json.loads(files["config.json"])["certificate"] == [
        "device.der", {"nvs": "private_key"}
    ]  # fmt: skip
    key = own.der[1].read_bytes()
    assert [path for path, data in files.items() if key in data] == ["nvs-vedette-private_key"]
    found = json.loads(desk.vedette("doctor", "--json"))["findings"]
    assert {each["name"]: each["state"] for each in found}["certificate"] == "good"
    (desk.flash / "nvs-vedette-private_key").unlink()
    found = json.loads(desk.vedette("doctor", "--json", code=1))["findings"]
    (finding,) = [each for each in found if each["name"] == "certificate"]
    assert finding["says"] == "its private key is not on the board"


def elliptic(folder: Path, name: str) -> certificates.Certificate:
    """With a key as boards had better have: 121 bytes."""
    made = certificates.Certificate(folder / "ec.pem", folder / "ec-key.pem")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate)  # fmt: skip
    return made


def test_a_module_with_a_certificate(desk: Desk, at_hub: LocalHub, tmp_path: Path) -> None:
    name = f"x509-{os.urandom(3).hex()}"
    text = f'board = "unix"\ndevice = "{name}"\nmodule = "m"\n'
    (desk.project / "config.toml").write_text(text)
    provision(desk, *shown(elliptic(tmp_path, name)))
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    wait_for(lambda: at_hub.twin(name, "m")["properties"]["reported"].get("latest_state"), bool)


def test_the_device_asks_for_its_hub_with_a_certificate(
    desk: Desk, at_hub: LocalHub, tmp_path: Path
) -> None:
    name = at_local_hub(desk, at_hub)
    report = provision(desk, *shown(certificates.make(tmp_path, name)))
    assert report["settings"] is True and report["key"] == "device-key.der"
    desk.write_app("second")
    assert desk.deploy()["state"] == "runs"
    assert registered(at_hub, name)["Heartbeat_Disabled"] is True
    found = json.loads(desk.vedette("doctor", "--json"))["findings"]
    assert {each["state"] for each in found} == {"good"}


def test_a_certificate_for_a_provisioning_service_elsewhere(
    desk: Desk, at_hub: LocalHub, tmp_path: Path
) -> None:
    name = self_provisioning(desk, "0ne1", "dps.example")
    report = provision(desk, *shown(certificates.make(tmp_path, name)))
    assert report["settings"] is False
    config = json.loads(desk.files()["config.json"])
    assert config["provisioning"] == {
        "scope": "0ne1", "host": "dps.example", "registration_id": name
    }  # fmt: skip
    error = desk.vedette(
        "provision", str(desk.project), *shown(certificates.make(tmp_path, "other")), code=4
    )
    assert "it is for other" in error and "common name" in error


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def test_a_certificate_that_does_not_do(desk: Desk, at_hub: LocalHub, tmp_path: Path) -> None:
    own, other = (certificates.make(tmp_path, "d") for _ in range(2))
    ended = certificates.make(tmp_path, "d", days=-1)
    encrypted, ed25519, none = tmp_path / "encrypted", tmp_path / "ed25519", tmp_path / "none"
    openssl("rsa", "-in", own.key, "-aes256", "-passout", "pass:hush", "-out", encrypted)
    openssl("genpkey", "-algorithm", "ed25519", "-out", ed25519)
    before = desk.files()
    for certificate, key, said in (
        (own.certificate, other.key, "is not the key of"),
        (ended.certificate, ended.key, "ended on"),
        (own.key, own.key, "is not an X.509 certificate"),
        (none, own.key, f"cannot read {none}"),
        (own.certificate, none, f"cannot read {none}"),
        (own.certificate, own.certificate, "is no private key that a board takes"),
        (own.certificate, encrypted, "openssl pkey"),
        (own.certificate, ed25519, "neither RSA nor"),
    ):
        words = ("--certificate", str(certificate), "--key", str(key))
        assert said in desk.vedette("provision", str(desk.project), *words, code=4)
    words = ("--key", str(own.key))
    assert "give both" in desk.vedette("provision", str(desk.project), *words, code=2)
    assert desk.files() == before


def test_a_key_of_an_elliptic_curve(tmp_path: Path) -> None:
    """In SEC1, as every MicroPython reads it."""
    certificate, key = elliptic(tmp_path, "d")
    own = device_certificate.load(certificate, key)
    openssl("ec", "-in", key, "-outform", "der", "-out", tmp_path / "key.der")
    assert own.key == (tmp_path / "key.der").read_bytes() and len(own.key) == 121
    openssl("x509", "-in", certificate, "-outform", "der", "-out", tmp_path / "cert.der")
    again = device_certificate.load(tmp_path / "cert.der", tmp_path / "key.der")
    assert again == own and own.name == "d" and "key" not in repr(own)


@pytest.mark.slow
def test_the_password_is_never_in_the_project(
    desk: Desk, at_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'board = "unix"\ndevice = "d"\n[network]\ntype = "wifi"\nssid = "s"\n'
    (desk.project / "config.toml").write_text(text)
    error = desk.vedette("provision", str(desk.project), code=1)
    assert "VEDETTE_WIFI_PASSWORD" in error
    monkeypatch.setenv("VEDETTE_WIFI_PASSWORD", "hush hush")
    assert "hush" not in desk.vedette("provision", str(desk.project))
    config = json.loads((desk.flash / "config.json").read_text())
    assert config["network"] == {"type": "wifi", "ssid": "s", "password": "hush hush"}


@pytest.mark.slow
def test_another_board_is_refused(desk: Desk, at_hub: LocalHub) -> None:
    (desk.project / "config.toml").write_text('board = "NUCLEO_F767ZI"\ndevice = "d"\n')
    before = desk.files()
    error = desk.vedette("provision", str(desk.project), code=4)
    assert "is no NUCLEO_F767ZI" in error and "linux" in error
    assert desk.files() == before
