"""A device as tests need one: paho-mqtt over real TLS, with each step waited for."""

from __future__ import annotations

import json
import queue
import re
import ssl
import time
from types import TracebackType
from typing import Any
from urllib.parse import quote

import paho.mqtt.client as mqtt
from certificates import Certificate
from hubfixture import LocalHub
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from vedette_tools.connection import parse_connection_string
from vedette_tools.hub import sas

TIMEOUT_S = 10
API_VERSION = "?api-version=2021-04-12"

Message = mqtt.MQTTMessage
Answer = tuple[int, str, Any]


class Device:
    """Keyword arguments replace what a well-behaved device sends."""

    def __init__(
        self,
        hub: LocalHub,
        connection_string: str,
        *,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        resource: str | None = None,
        lifetime: float = 3600,
        query: str = API_VERSION,
        clean: bool = True,
        keepalive: int = 60,
        will: tuple[str, bytes] | None = None,
        manual_ack: bool = False,
        certificate: Certificate | None = None,
        websockets: bool = False,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> None:
        self._hub = hub
        fields = parse_connection_string(connection_string)
        device, module = fields["DeviceId"], fields.get("ModuleId")
        name = f"{device}/{module}" if module else device
        self.path = f"devices/{device}" + (f"/modules/{module}" if module else "")
        self.client_id = client_id or name
        self.messages: queue.Queue[Message] = queue.Queue()
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._keepalive = keepalive
        self._port = hub.connection["https_port"] if websockets else hub.port
        self._answers_subscribed = False
        clean_options = {} if protocol == MQTTProtocolVersion.MQTTv5 else {"clean_session": clean}
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=manual_ack,
            transport="websockets" if websockets else "tcp",
            **clean_options,
        )
        context = ssl.create_default_context(cafile=str(hub.ca))
        if websockets:
            self.client.ws_set_options(path="/$iothub/websocket")
        if certificate:
            context.load_cert_chain(*certificate)
        self.client.tls_set_context(context)
        resource = resource or f"localhost/{self.path}"
        token = password
        if "SharedAccessKey" in fields:
            token = token or sas.make(resource, fields["SharedAccessKey"], lifetime)
        self.client.username_pw_set(username or f"localhost/{name}/{query}", token)
        if will:
            self.client.will_set(*will, qos=1)
        self.client.on_connect = lambda _c, _d, _f, code, _p: self._note("connect", code.value)
        self.client.on_disconnect = lambda _c, _d, _f, code, _p: self._note("disconnect", code)
        self.client.on_subscribe = lambda _c, _d, _m, codes, _p: self._note("subscribe", codes)
        self.client.on_unsubscribe = lambda *_: self._note("unsubscribe", None)
        self.client.on_message = lambda _c, _d, message: self.messages.put(message)

    @classmethod
    def connected(cls, hub: LocalHub, connection_string: str, **options: Any) -> Device:
        """A device that is connected, once a hub that is coming back lets it."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            device = cls(hub, connection_string, **options)
            try:
                assert device.connect() == 0, "refused"
                return device
            except OSError:
                assert time.monotonic() < deadline, "the hub did not come back"
                time.sleep(0.05)

    def __enter__(self) -> Device:
        """Connects, unless that was done."""
        assert self.client.is_connected() or self.connect() == 0, "refused"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> int:
        """The CONNACK's return code; as paho gives it, 135 stands for 5."""
        self.client.connect(self._hub.host, self._port, self._keepalive)
        self.client.loop_start()
        code = self._wait("connect")
        if code:
            self.close()
        return int(code)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def abort(self) -> None:
        """Break the connection without DISCONNECT."""
        sock = self.client.socket()
        assert sock
        sock.shutdown(2)

    def wait_closed(self, timeout: float = TIMEOUT_S) -> None:
        self._wait("disconnect", timeout)

    def subscribe(self, topic: str, qos: int = 0) -> int:
        """The QoS granted, or 128."""
        self.client.subscribe(topic, qos)
        return int(self._wait("subscribe")[0].value)

    def unsubscribe(self, topic: str) -> None:
        self.client.unsubscribe(topic)
        self._wait("unsubscribe")

    def publish(self, topic: str, payload: str | bytes = b"", **options: Any) -> None:
        """Publish at QoS 1, and wait for the PUBACK."""
        options.setdefault("qos", 1)
        info = self.client.publish(topic, payload, **options)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published(), "no PUBACK"

    def send(self, body: Any, bag: str = "") -> None:
        """Telemetry; what is not bytes goes as JSON."""
        payload = body if isinstance(body, bytes) else json.dumps(body)
        self.publish(f"{self.path}/messages/events/{bag}", payload)

    def receive(self, timeout: float = TIMEOUT_S) -> Message:
        return self.messages.get(timeout=timeout)

    def nothing_arrives(self, seconds: float = 0.3) -> bool:
        try:
            self.messages.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def request(self, topic: str, payload: Any = None, request_id: str = "7") -> Answer:
        """A twin request; returns status, what follows `$rid`, and the body."""
        if not self._answers_subscribed:
            self.subscribe("$iothub/twin/res/#")
            self._answers_subscribed = True
        body = b"" if payload is None else json.dumps(payload)
        self.publish(f"{topic}?$rid={request_id}", body, qos=0)
        answer = self.receive()
        match = re.fullmatch(r"\$iothub/twin/res/(\d+)/\?\$rid=([^&]*)(.*)", answer.topic)
        assert match and match[2] == request_id, answer.topic
        return int(match[1]), match[3], json.loads(answer.payload) if answer.payload else None

    def get_twin(self) -> Any:
        status, _, twin = self.request("$iothub/twin/GET/")
        assert status == 200
        return twin

    def report(self, patch: Any) -> Answer:
        return self.request("$iothub/twin/PATCH/properties/reported/", patch)

    def _note(self, what: str, value: Any) -> None:
        self._events.put((what, value))

    def _wait(self, what: str, timeout: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            try:
                name, value = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what} within {timeout} s") from None
            if name == what:
                return value
            if name == "disconnect" and what == "connect":
                raise ConnectionError("closed before CONNACK")


def encoded(bag: dict[str, str]) -> str:
    return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in bag.items())
