"""`vedette events` as with Azure's hub: Microsoft's azure-eventhub reads the local hub by AMQP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from hubfixture import COMMAND, LocalHub
from otherhub import other_hub  # noqa: F401 - fixture
from vedette_tools.connection import parse_connection_string
from vedette_tools.hub import sas

pytest.importorskip("azure.iot.device")

from azure.eventhub import (  # noqa: E402
    EventData,
    EventHubConsumerClient,
    EventHubSharedKeyCredential,
    PartitionContext,
)
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message  # noqa: E402

pytestmark = pytest.mark.slow

AGENT = "urn:azureiot:Security:SecurityAgent:1"
LIMIT_S = 40

Json = dict[str, Any]
Done = subprocess.CompletedProcess[str]


def client_of(hub: LocalHub, device: str, module: str | None = None) -> Any:
    kind = IoTHubModuleClient if module else IoTHubDeviceClient
    return kind.create_from_connection_string(
        hub.create_device(device, module), server_verification_cert=hub.ca.read_text()
    )


def send(hub: LocalHub, device: str, *bodies: str, module: str | None = None) -> None:
    client = client_of(hub, device, module)
    for body in bodies:
        client.send_message(body)
    client.shutdown()
    hub.wait_events(device, len(bodies))


def environment(connection_string: str, ca: Path | None, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VEDETTE_HUB")}
    file = folder / "connection"
    file.write_text(connection_string)
    given = {"VEDETTE_HUB_FILE": str(file), "VEDETTE_HUB_STATE": str(folder / "none")}
    return {**kept, **given, **({"VEDETTE_HUB_CA": str(ca)} if ca else {})}


@pytest.fixture
def by_events(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """Where the Event Hub's connection string is all that is known."""
    return environment(hub.connection["event_hub_connection_string"], hub.ca, tmp_path)


def vedette(env: dict[str, str], *words: str) -> Done:
    return subprocess.run(
        [COMMAND, *words], env=env, capture_output=True, text=True, timeout=LIMIT_S
    )


def events(env: dict[str, str], *words: str) -> list[Json]:
    done = vedette(env, "events", *words)
    assert done.returncode == 0 and done.stderr == "", done
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(env: dict[str, str], *words: str) -> str:
    done = vedette(env, *words)
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


def test_an_event_is_what_the_local_hub_shows(hub: LocalHub, by_events: dict[str, str]) -> None:
    client = client_of(hub, "eh-1", "m")
    full = Message('{"n": 1}')
    full.message_id, full.correlation_id = "id 1", "c&1"
    full.content_type, full.content_encoding = "application/json", "utf-8"
    full.custom_properties = {"level": "high", "a key": "ü=1"}
    security = Message('{"Events": 1}')
    security.set_as_security_message()
    for message in (full, Message(b"\xff\x00"), Message("text"), security):
        client.send_message(message)
    client.shutdown()
    local = hub.wait_events("eh-1", 4)
    assert "$: " in local[3]["schemaError"] and local[3]["systemProperties"]["$.ifid"] == AGENT
    assert events(by_events, "--device", "eh-1") == local


def test_all_partitions_are_read(hub: LocalHub, by_events: dict[str, str]) -> None:
    for number in range(6):
        send(hub, f"eh-2-{number}", "1", "2")
    shown = events(by_events)
    assert sorted(each["id"] for each in shown) == [each["id"] for each in hub.events()]
    for number in range(6):
        of_one = [each["body"] for each in shown if each["deviceId"] == f"eh-2-{number}"]
        assert of_one == [1, 2]


def test_the_last_and_those_since(hub: LocalHub, by_events: dict[str, str]) -> None:
    send(hub, "eh-3", *map(str, range(5)))
    local = hub.events()
    assert events(by_events, "--limit", "3") == local[-3:]
    assert events(by_events, "--limit", "2", "--device", "eh-3") == hub.events("eh-3")[-2:]
    moment = hub.events("eh-3")[0]["enqueuedTimeUtc"]
    since = [each for each in local if each["enqueuedTimeUtc"] >= moment[:19]]
    shown = events(by_events, "--since", moment[:19])
    assert sorted(shown, key=lambda each: each["id"]) == since
    assert events(by_events, "--since", "2100-01-01T00:00:00") == []


def test_following(hub: LocalHub, by_events: dict[str, str]) -> None:
    send(hub, "eh-4", "1", "2")
    command = [COMMAND, "events", "--follow", "--limit", "1", "--device", "eh-4"]
    process = subprocess.Popen(command, env=by_events, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert json.loads(process.stdout.readline())["body"] == 2
        send(hub, "eh-4", "3")
        assert json.loads(process.stdout.readline())["body"] == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()


def test_a_reader_that_goes_away(hub: LocalHub, by_events: dict[str, str]) -> None:
    send(hub, "eh-5", "1", "2")
    line = f"{COMMAND} events | head -1"
    done = subprocess.run(
        line, shell=True, env=by_events, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_the_hub_says_where_its_events_are(
    hub: LocalHub,
    other_hub: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    send(hub, "eh-6", "1")
    env = environment(other_hub, hub.ca, tmp_path)
    assert events(env, "--device", "eh-6") == hub.events("eh-6")
    assert "is no local hub" in refused(env, "hub", "statistics")
    wrong = other_hub.partition("SharedAccessKey=")[0] + "SharedAccessKey=" + sas.new_key()
    said = refused(environment(wrong, hub.ca, tmp_path), "events")
    assert f"{hub.host} refuses the key" in said and "next: " in said


def test_what_does_not_do(hub: LocalHub, by_events: dict[str, str], tmp_path: Path) -> None:
    string = hub.connection["event_hub_connection_string"]
    key = string.partition("SharedAccessKey=")[2].partition(";")[0]
    said = [
        refused(environment(string.replace(key, sas.new_key()), hub.ca, tmp_path), "events"),
        refused(environment(string, None, tmp_path), "events"),
        refused(environment(string.partition(";EntityPath")[0], hub.ca, tmp_path), "events"),
        refused(environment(string.replace("=vedette", "=other"), hub.ca, tmp_path), "events"),
        refused(by_events | {"VEDETTE_HUB_CA": "none.pem"}, "events"),
        refused(environment(string, hub.ca, tmp_path), "twin", "get", "eh-1"),
    ]
    expected = [
        "refuses the key",
        "VEDETTE_HUB_CA",
        "it has no EntityPath",
        "EntityPath",
        "none.pem",
        "that of its Event Hub",
    ]
    for text, part in zip(said, expected, strict=True):
        assert part in text and key not in text
    done = vedette(environment(string, None, tmp_path), "events", "--json")
    assert done.returncode == 1 and "VEDETTE_HUB_CA" in json.loads(done.stdout)["error"]["next"]


def test_a_token_for_the_events_opens_nothing_else(hub: LocalHub) -> None:
    fields = parse_connection_string(hub.connection["event_hub_connection_string"])
    credential = EventHubSharedKeyCredential(
        fields["SharedAccessKeyName"], fields["SharedAccessKey"]
    )
    token = credential.get_token(f"sb://{hub.host}/vedette").token
    answer = requests.get(
        f"https://{hub.host}:{hub.connection['https_port']}/devices/eh-1",
        headers={"Authorization": token if isinstance(token, str) else token.decode()},
        verify=str(hub.ca),
        timeout=LIMIT_S,
    )
    assert answer.status_code == 401 and "events alone" in answer.json()["Message"]


def test_microsofts_client_by_itself(hub: LocalHub) -> None:
    hub.create_device("eh-7")
    client = EventHubConsumerClient.from_connection_string(
        hub.connection["event_hub_connection_string"], "$Default", connection_verify=str(hub.ca)
    )
    assert client.get_eventhub_properties()["partition_ids"] == ["0", "1"]
    with pytest.raises(Exception, match="404"):
        client.get_partition_properties("2")
    found: list[EventData] = []
    ready = threading.Event()

    def take(context: PartitionContext, event: EventData | None) -> None:
        if event is None:
            ready.set()  # it waits for new ones
        elif event.system_properties[b"iothub-connection-device-id"] == b"eh-7":
            found.append(event)
            client.close()

    reading = threading.Thread(
        target=client.receive,
        args=(take,),
        kwargs={"starting_position": "@latest", "max_wait_time": 1},
    )
    reading.start()
    with contextlib.closing(client):
        assert ready.wait(LIMIT_S)
        ready.clear()
        assert ready.wait(LIMIT_S)  # in the other partition
        send(hub, "eh-7", "new")
        reading.join(LIMIT_S)
    assert [event.body_as_str() for event in found] == ["new"]
