"""The `vedette` command, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import types
from pathlib import Path

import pytest
from hubfixture import COMMAND, LocalHub
from mqttclient import Device
from otherhub import other_hub  # noqa: F401 - fixture


def vedette(
    hub: LocalHub | types.SimpleNamespace, *words: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words], env=hub.env, capture_output=True, text=True, timeout=30
    )


def printed(hub: LocalHub, *words: str) -> str:
    done = vedette(hub, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def refused(hub: LocalHub | types.SimpleNamespace, *words: str) -> str:
    """What a command that fails says."""
    done = vedette(hub, *words)
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


def test_a_device_from_its_creation_to_its_end(hub: LocalHub) -> None:
    string = printed(hub, "device", "create", "k-1")
    assert string.startswith(f"HostName=localhost:{hub.port};DeviceId=k-1;SharedAccessKey=")
    assert "already" in refused(hub, "device", "create", "k-1")
    module = printed(hub, "device", "create", "k-1", "--module", "m")
    assert ";ModuleId=m;" in module
    with Device(hub, string), Device(hub, module) as agent:
        agent.send({"n": 1})
        hub.wait_events("k-1")
        listed = printed(hub, "device", "list")
        assert "k-1\tconnected" in listed and "k-1/m\tconnected" in listed
        assert json.loads(printed(hub, "device", "show", "k-1"))["connectionState"] == "Connected"
    printed(hub, "device", "delete", "k-1")
    missing = refused(hub, "device", "show", "k-1")
    assert "no device 'k-1'" in missing and "next: `vedette device list`" in missing
    assert json.loads(printed(hub, "hub", "events", "--device", "k-1"))["body"] == {"n": 1}


def test_a_module_brings_its_device_along(hub: LocalHub) -> None:
    printed(hub, "device", "create", "k-2", "--module", "m")
    assert "k-2\t" in printed(hub, "device", "list")


@pytest.mark.parametrize(
    ("changes", "desired"),
    [
        (['{"a": {"b": 1}}'], {"a": {"b": 1}}),
        (['{"properties": {"desired": {"a": 1}}}'], {"a": 1}),
        (["a.b=2", "a.c=x", "d=true", 'e="3"'], {"a": {"b": 2, "c": "x"}, "d": True, "e": "3"}),
        (["@twin.json"], {"from": "file"}),
    ],
)  # fmt: skip
def test_twin_set(
    hub: LocalHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[str],
    desired: dict[str, object],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twin.json").write_text('{"from": "file"}')
    name = f"k-{os.urandom(4).hex()}"
    hub.create_device(name)
    printed(hub, "twin", "set", name, *changes)
    twin = json.loads(printed(hub, "twin", "get", name))["properties"]["desired"]
    assert {k: v for k, v in twin.items() if not k.startswith("$")} == desired


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["{"], "not JSON"),
        (["[1]"], "not KEY=VALUE"),
        (["@missing.json"], "cannot read missing.json: No such file or directory\n"),
        (["a"], "not KEY=VALUE"),
        (["a=1", "a.b=2"], "given a value already"),
        (['{"a.b": 1}'], "holds '.'"),
    ],
)
def test_twin_set_says_what_is_wrong(hub: LocalHub, changes: list[str], says: str) -> None:
    hub.create_device("k-3")
    assert says in refused(hub, "twin", "set", "k-3", *changes)


def test_events_can_be_followed_and_limited(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("k-4")) as device:
        for number in range(5):
            device.send(number)
        hub.wait_events("k-4", 5)
        last = printed(hub, "hub", "events", "--device", "k-4", "--limit", "2").splitlines()
        assert [json.loads(line)["body"] for line in last] == [3, 4]
        assert printed(hub, "hub", "events", "--since", "2199-01-01") == ""
        follower = subprocess.Popen(
            [COMMAND, "hub", "events", "--follow", "--device", "k-4"],
            env=hub.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout and follower.stderr
        lines = (json.loads(line)["body"] for line in follower.stdout)
        assert [next(lines) for _ in range(5)] == [0, 1, 2, 3, 4]
        device.send(5)
        assert next(lines) == 5
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0 and follower.stderr.read() == ""


def test_a_follower_ends_with_its_reader(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("k-5")) as device:
        device.send(1)
        follower = subprocess.Popen(
            [COMMAND, "hub", "events", "--follow", "--device", "k-5"],
            env=hub.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout and follower.stderr
        follower.stdout.readline()
        follower.stdout.close()
        device.send(2)
        assert follower.wait(10) == 0 and follower.stderr.read() == ""


def test_call_and_send(hub: LocalHub) -> None:
    with Device(hub, hub.create_device("k-7")) as device:
        device.subscribe("$iothub/methods/POST/#")
        device.subscribe("devices/k-7/messages/devicebound/#", 1)
        printed(hub, "device", "send", "k-7", "hello", "-p", "a=b=c")
        message = device.receive()
        assert message.payload == b"hello" and message.topic.endswith("&a=b%3Dc")
        caller = subprocess.Popen(
            [COMMAND, "device", "call", "k-7", "echo", '{"a": 1}'],
            env=hub.env,
            stdout=subprocess.PIPE,
            text=True,
        )
        call = device.receive()
        request_id = call.topic.partition("$rid=")[2]
        device.publish(f"$iothub/methods/res/201/?$rid={request_id}", call.payload, qos=0)
        answer, _ = caller.communicate(timeout=30)
        assert json.loads(answer) == {"status": 201, "payload": {"a": 1}}
        assert "not JSON" in refused(hub, "device", "call", "k-7", "echo", "{")
    said = refused(hub, "device", "call", "k-7", "echo")
    assert "not online" in said and "next: `vedette device list`" in said
    assert "there is no device 'k-7-2'" in refused(hub, "device", "call", "k-7-2", "echo")


def test_the_hub_is_found_by_its_connection_string(hub: LocalHub) -> None:
    hub.create_device("k-6")
    environment = {
        **hub.env,
        "VEDETTE_HUB_STATE": "/nowhere",
        "VEDETTE_HUB": hub.connection["service_connection_string"],
        "VEDETTE_HUB_CA": str(hub.ca),
    }
    done = subprocess.run(
        [COMMAND, "twin", "get", "k-6"], env=environment, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["deviceId"] == "k-6"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"VEDETTE_HUB_STATE": "/nowhere"}, "Start one with `vedette hub up`"),
        ({"VEDETTE_HUB": "nonsense"}, "not of the form"),
        ({"VEDETTE_HUB": "HostName=localhost:1;SharedAccessKey=c2VjcmV0"}, "SharedAccessKeyName"),
        (
            {"VEDETTE_HUB": "HostName=localhost:1;SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0"},
            "does not answer",
        ),
        (
            {"VEDETTE_HUB": "HostName=localhost:1;SharedAccessKeyName=a;SharedAccessKey=secret!"},
            "not base64",
        ),
        *(
            (
                {"VEDETTE_HUB": f"HostName={host};SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0"},
                f"{host} is not reached as a hub",
            )
            for host in ("localhost:port", "localhost:1/", "my hub", "a..b")
        ),
    ],
)
def test_no_hub_is_explained(hub: LocalHub, changes: dict[str, str], says: str) -> None:
    done = subprocess.run(
        [COMMAND, "device", "list"], env={**hub.env, **changes}, capture_output=True, text=True
    )
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
    assert "c2VjcmV0" not in done.stderr and "secret!" not in done.stderr


def test_json_that_is_nested_without_end_is_explained(hub: LocalHub, tmp_path: Path) -> None:
    deep = "[" * 100_000
    (tmp_path / "deep").write_text(deep)
    hub.create_device("k-8")
    assert "nested too deeply" in refused(hub, "twin", "set", "k-8", f"@{tmp_path}/deep")
    assert "nested too deeply" in refused(hub, "device", "call", "k-8", "m", deep)
    printed(hub, "twin", "set", "k-8", f"a={deep[:4000]}")  # then it is a string
    assert hub.twin("k-8")["properties"]["desired"]["a"] == deep[:4000]


@pytest.mark.parametrize(
    "words", [("device", "show"), ("device", "delete"), ("twin", "get"), ("device", "enrol")]
)
def test_an_id_that_is_empty_is_told(hub: LocalHub, words: tuple[str, ...]) -> None:
    assert "id is empty" in refused(hub, *words, "")


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "ü", "a" * 129])
def test_only_what_can_register_is_enrolled(hub: LocalHub, name: str) -> None:
    assert "is no registration id" in refused(hub, "device", "enrol", name)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("device list > /dev/full", 1, "No space left on device"),
        ("device show nobody --json > /dev/full", 1, "No space left on device"),
        ("boards > /dev/full", 1, "No space left on device"),
        ("device list >&-", 0, ""),
        ("events >&-", 0, ""),
        ("boards >&-", 0, ""),
        ("device show nobody 2>&-", 1, ""),
        ("device show $'\\xff'", 2, "no text in UTF-8"),
        ("hub fault $'\\xff'", 2, "no text in UTF-8"),
        ("events --device $'\\xff'", 2, "no text in UTF-8"),
    ],
)
def test_what_a_shell_does_to_a_command(hub: LocalHub, command: str, code: int, says: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} {command}"],
        env=hub.env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code and says in done.stderr, done
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


def test_a_property_without_a_value_is_told(hub: LocalHub) -> None:
    hub.create_device("k-11")
    for pair in ("key", "=value"):
        assert "not KEY=VALUE" in refused(hub, "device", "send", "k-11", "text", "-p", pair)


def test_a_state_that_is_damaged_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(("hub.db", "spool", "spool/000000000001")):
        state = tmp_path / str(number)
        (state / name).parent.mkdir(parents=True)
        (state / name).write_bytes(b"\xff damaged" * 1000)
        done = subprocess.run(
            [COMMAND, "hub", "up", "--json", "--mqtt-port", "0", "--https-port", "0",
             "--state", str(state)],
            capture_output=True,
            text=True,
            timeout=30,
        )  # fmt: skip
        assert done.returncode == 1 and done.stderr == "", (name, done)
        error = json.loads(done.stdout)["error"]
        assert str(state) in error["what"] and error["why"] and "--state" in error["next"]


def test_an_empty_address_is_not_taken_for_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "hub", "up", "--state", str(tmp_path / "s"), "--mqtt-port", "0",
         "--https-port", "0", "--listen", ""],
        capture_output=True,
        text=True,
        timeout=10,
    )  # fmt: skip
    assert done.returncode == 2 and "--listen is empty" in done.stderr


def test_a_fault_that_is_none_is_told(hub: LocalHub) -> None:
    assert "there is no fault 'no such'" in refused(hub, "hub", "fault", "no such")


def test_a_port_that_speaks_something_else_is_explained(hub: LocalHub) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hub.ca.with_name("server.pem"), hub.ca.with_name("server.key"))
    with socket.create_server(("localhost", 0)) as server:

        def answer() -> None:
            with context.wrap_socket(server.accept()[0], server_side=True) as peer:
                peer.recv(4096)
                peer.sendall(b"AMQP\x03\x01\x00\x00")

        threading.Thread(target=answer, daemon=True).start()
        host = f"localhost:{server.getsockname()[1]}"
        string = f"HostName={host};SharedAccessKeyName=a;SharedAccessKey=c2VjcmV0"
        done = subprocess.run(
            [COMMAND, "device", "list", "--json"],
            env={**hub.env, "VEDETTE_HUB": string, "VEDETTE_HUB_CA": str(hub.ca)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1 and not done.stderr
    assert "is not reached as a hub" in json.loads(done.stdout)["error"]["what"]


def test_a_certificate_of_another_authority_is_explained(hub: LocalHub) -> None:
    environment = {**hub.env, "VEDETTE_HUB": hub.connection["service_connection_string"]}
    environment.pop("SSL_CERT_FILE", None)
    done = subprocess.run(
        [COMMAND, "device", "list"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "VEDETTE_HUB_CA" in done.stderr


def test_the_wrong_key_is_refused(hub: LocalHub) -> None:
    string = hub.connection["service_connection_string"].partition("SharedAccessKey=")[0]
    changes = {"VEDETTE_HUB": string + "SharedAccessKey=AAAA", "VEDETTE_HUB_CA": str(hub.ca)}
    done = subprocess.run(
        [COMMAND, "device", "list"], env={**hub.env, **changes}, capture_output=True, text=True
    )
    assert done.returncode == 1 and "iothubowner" in done.stderr


@pytest.mark.parametrize("option", ["--mqtt-port", "--https-port"])
def test_a_taken_port_is_explained(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--mqtt-port": "0", "--https-port": "0", option: str(taken.getsockname()[1])}
        words = [word for pair in ports.items() for word in pair]
        done = subprocess.run(
            [COMMAND, "hub", "up", "--json", "--state", str(tmp_path / "s"), *words],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1 and done.stderr == ""
    what = json.loads(done.stdout)["error"]["what"]
    assert "is taken" in what and option in what


@pytest.mark.parametrize(
    "options", [("--mqtt-port", "--https-port"), ("--https-port", "--amqps-port")]
)
def test_one_port_for_two_things_is_refused(tmp_path: Path, options: tuple[str, str]) -> None:
    ports = {"--mqtt-port": "0", "--https-port": "0", **dict.fromkeys(options, "18900")}
    words = [word for pair in ports.items() for word in pair]
    done = subprocess.run(
        [COMMAND, "hub", "up", "--state", str(tmp_path / "s"), *words],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stdout == "" and not (tmp_path / "s").exists()
    assert f"{' and '.join(options)} are both 18900" in done.stderr
    assert "next: " in done.stderr


def test_amqp_without_its_library_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "proton.py").write_text("raise ImportError")
    done = subprocess.run(
        [COMMAND, "hub", "up", "--state", str(tmp_path / "s"), "--amqps-port", "0",
         "--mqtt-port", "0", "--https-port", "0"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "pip install 'vedette-tools[amqp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_state_directory_has_one_hub(hub: LocalHub) -> None:
    words = ["hub", "up", "--state", str(hub.state), "--mqtt-port", "0", "--https-port", "0"]
    done = vedette(hub, *words)
    assert done.returncode == 1 and "another hub runs" in done.stderr


def test_up_prints_one_line_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    words = ["hub", "up", "--json", "--mqtt-port", "0", "--https-port", "0"]
    process = subprocess.Popen(
        [COMMAND, *words, "--state", str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stderr
    line = json.loads(process.stdout.readline())
    assert set(line) >= {
        "service_connection_string", "ca", "mqtt_host", "mqtt_port", "https_port"
    }  # fmt: skip
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert process.stdout.read() == "" and process.stderr.read() == ""


def test_keys_are_readable_by_their_owner_only(hub: LocalHub) -> None:
    for name in ("ca.key", "server.key", "hub.json", "hub.db"):
        assert (hub.state / name).stat().st_mode & 0o077 == 0, name
    assert hub.state.stat().st_mode & 0o077 == 0


def test_another_hub_has_no_such_thing(
    hub: LocalHub,
    other_hub: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "hub").write_text(other_hub)
    env = {**hub.env, "VEDETTE_HUB_FILE": str(tmp_path / "hub"), "VEDETTE_HUB_CA": str(hub.ca)}
    hub_env = types.SimpleNamespace(env=env)
    assert "is no local hub" in refused(hub_env, "hub", "statistics")
    said = refused(hub_env, "device", "show", "d")
    assert "error: There is no such device\n  why:  Tracking ID:" in said
