"""config.json as people write it: right, wrong in one place, and wrong in any way."""

import json
import random

from vedette import config_file, ports, store
from vedette.config_file import ConfigError

SECRET = "correct horse"
GOOD = {"connection_string": SECRET, "ca": "root.der"}
DPS = {"scope": "0ne1", "registration_id": "r"}
WIFI = {"type": "wifi", "ssid": "lab", "password": SECRET}


class Port:
    """Stands in for an ESP32: one secret is in NVS."""

    @staticmethod
    def secret(name):
        return SECRET.encode() if name == "connection" else None


ports.load = lambda: Port


def _read(text):
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    store.read = lambda path, limit: text if len(text) <= limit else None
    return config_file.read("config.json")


def _refused(text):
    try:
        _read(text)
    except ConfigError as error:
        assert str(error).startswith("config.json"), error
        assert SECRET not in str(error), error
        return str(error)
    raise AssertionError("taken: %r" % text)


def test_what_is_right_is_taken():
    assert _read(GOOD) == dict(GOOD, ca=["root.der"])
    whole = dict(
        GOOD,
        ca=["a.der", "b.der"],
        state="kept",
        outbox_size=16384,
        journal=False,
        watchdog=30,
        network=dict(WIFI, country="DE", hostname="sensor-7"),
        time_servers=["ntp.example", "10.0.0.1:1123"],
    )
    assert _read(whole) == whole
    ethernet = {"type": "ethernet", "phy_type": "LAN8720", "phy_addr": 0, "mdc": 23, "power": "A1"}
    assert _read(dict(GOOD, network=ethernet))["network"] == ethernet


def test_secrets_can_be_elsewhere():
    hidden = dict(GOOD, connection_string={"nvs": "connection"})
    assert _read(hidden)["connection_string"] == SECRET
    network = dict(WIFI, password={"nvs": "connection"})
    assert _read(dict(GOOD, network=network))["network"]["password"] == SECRET
    hidden["connection_string"] = {"nvs": "nothing"}
    assert "provision it again" in _refused(hidden)


def test_who_the_device_is_can_be_said_in_other_ways():
    x509 = dict(GOOD, certificate=["cert.der", "key.der"])
    assert _read(x509) == dict(x509, ca=["root.der"])
    x509["certificate"] = ["cert.der", {"nvs": "connection"}]
    assert _read(x509)["certificate"] == ["cert.der", SECRET.encode()]
    dps = {"scope": "0ne1", "registration_id": "r", "key": {"nvs": "connection"}, "host": "h:1"}
    assert _read({"provisioning": dps, "ca": "root.der"})["provisioning"]["key"] == SECRET
    del dps["key"]
    both = {"provisioning": dps, "ca": "root.der"}
    said = "give either provisioning key or certificate"
    assert said in _refused(both)
    both["certificate"] = ["cert.der", "key.der"]
    _read(both)
    dps["key"] = SECRET
    assert said in _refused(both)
    for both in (dict(GOOD, provisioning=dps), {"ca": "root.der"}):
        assert "give either connection_string or provisioning" in _refused(both)


def test_each_mistake_is_named():
    for key, value, said in (
        ("connection_string", "", "connection_string must be a string"),
        ("connection_string", {"file": "x"}, "connection_string nvs is missing"),
        ("connection_string", {"nvs": 1}, "connection_string nvs must be a string"),
        ("ca", ["root.der", 1], "ca must be a path, or a list of paths"),
        ("certificate", "cert.der", "certificate must be two paths"),
        ("certificate", ["cert.der", 1], "certificate must be a string"),
        ("certificate", ["cert.der", "key.der", "x"], "certificate must be two paths"),
        ("certificate", [{"nvs": "connection"}, "key.der"], "certificate must be a string"),
        ("certificate", ["cert.der", {"nvs": "other"}], "certificate is not in this device's NVS"),
        ("provisioning", "0ne1", "provisioning must be an object"),
        ("provisioning", {"scope": "0ne1"}, "provisioning registration_id is missing"),
        ("provisioning", {"group_key": SECRET}, "provisioning scope is missing"),
        ("provisioning", dict(DPS, key=1), "provisioning key must be a string"),
        ("provisioning", dict(DPS, host="h:x"), 'provisioning host must be "host"'),
        ("provisioning", dict(DPS, group_key=SECRET), "provisioning group_key is no key"),
        ("outbox_size", 2047, "outbox_size must be an integer from 2048 to 65535"),
        ("watchdog", -1, "watchdog must be an integer from 0 to 65535"),
        ("journal", 1, "journal must be true or false"),
        ("network", "wifi", "network must be {"),
        ("network", {"type": "token ring"}, "network must be {"),
        ("network", {"type": "wifi"}, "network ssid is missing"),
        ("network", dict(WIFI, ssid=5), "network ssid must be a string"),
        ("network", dict(WIFI, password=5), "network password must be a string"),
        ("network", dict(WIFI, mdc=5), "network mdc is no key; there are country, hostname"),
        ("network", dict(WIFI, country="Germany"), "network country must be two letters"),
        ("network", dict(WIFI, hostname="h" * 33), "network hostname must have at most 32"),
        ("network", {"type": "ethernet", "ssid": "x"}, "network ssid is no key"),
        ("network", {"type": "ethernet", "mdc": -1}, "network mdc must be"),
        ("network", {"type": "ethernet", "phy_addr": "0"}, "network phy_addr must be"),
        ("time_servers", ["a"], "time_servers must be a list of two servers"),
        ("time_servers", ["a", ""], "time_servers must be"),
        ("time_servers", ["a", ":5"], "time_servers must be"),
        ("time_servers", ["a", "b:0"], "time_servers must be"),
        ("time_servers", ["a", "b:65536"], "time_servers must be"),
        ("time_servers", ["a", "b:x"], "time_servers must be"),
        ("time_servers", [["a"], "b"], "time_servers must be"),
    ):
        text = _refused(dict(GOOD, **{key: value}))
        assert text.startswith("config.json: " + said), text


VALUES = (
    None, True, 0, -1, 1.5, 10**20, "", "x", SECRET, "a:1", [], [SECRET], ["a", "b"], {}, WIFI,
    {"nvs": "connection"}, {"nvs": SECRET}, {SECRET: SECRET}, {"type": "ethernet"}, [[[{}]]],
)  # fmt: skip


def test_no_document_does_more_than_to_be_refused():
    random.seed(7)
    taken = 0
    for _ in range(1000):
        document = dict(GOOD)
        for _ in range(random.randrange(3)):
            key = random.choice(tuple(config_file._KEYS) + ("type", "x"))
            document[key] = random.choice(VALUES)
        if isinstance(document.get("network"), dict) and random.randrange(2):
            key = random.choice(("type", "ssid", "password", "mdc", "phy_type", "country", "x"))
            document["network"] = dict(document["network"], **{key: random.choice(VALUES)})
        try:
            _read(document)
            taken += 1
        except ConfigError as error:
            assert SECRET not in str(error), error
    assert 200 < taken < 800, taken


def test_no_bytes_do_more_than_to_be_refused():
    random.seed(11)
    good = json.dumps(dict(GOOD, network=WIFI)).encode()
    for _ in range(1000):
        text = bytearray(good)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(text))
            if random.randrange(2):
                text[at] = random.getrandbits(8)
            else:
                text = text[:at] + text[at + random.randrange(9) :]
        try:
            _read(bytes(text))
        except ConfigError:
            pass
    for text in (b"[" * 4096, b'{"a":' * 800, b"\xff" * 64, b'"' * 9, b"1e999", b"\0"):
        _refused(text)
