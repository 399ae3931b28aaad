"""Finds the hub, and speaks with its service API.

The hub is the one that VEDETTE_HUB names (a service connection string; VEDETTE_HUB_FILE: the file
with it; VEDETTE_HUB_CA: the file of the authority that signed its certificate), else the local hub
whose state directory is VEDETTE_HUB_STATE, or the default one.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from vedette_tools.errors import CommandError, reason
from vedette_tools.hub import NAME, sas

API_VERSION = "2021-04-12"
TIMEOUT_S = 30
LOCAL = "/vedette/"  # begins the paths that Azure's hub does not have

Json = dict[str, Any]


class NotFound(CommandError):
    """The hub has no such thing."""


class NoHub(CommandError):
    """None was named, and there is no local one."""


class NotLocal(CommandError):
    """Only the local hub can do this."""


def state_directory() -> Path:
    """Where the local hub keeps its state unless told otherwise."""
    if chosen := os.environ.get("VEDETTE_HUB_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "vedette" / "hub"


def parse_connection_string(text: str) -> dict[str, str]:
    """`Name=value;...` as a dictionary. Errors: CommandError, which never repeats the text."""
    fields = {}
    for part in filter(None, text.strip().split(";")):
        name, equals, value = part.partition("=")
        if not equals:
            raise CommandError("the connection string is not of the form Name=value;Name=value")
        fields[name] = value
    return fields


class HubConnection:
    """The service side of a hub."""

    def __init__(self, connection_string: str, ca: str | None, mqtt_port: int = 8883) -> None:
        fields = parse_connection_string(connection_string)
        if "Endpoint" in fields:
            raise CommandError(
                "the hub's connection string is that of its Event Hub",
                why="that is for `vedette events` alone",
                next_step="set VEDETTE_HUB to the one of the service side",
            )
        missing = {"HostName", "SharedAccessKeyName", "SharedAccessKey"} - set(fields)
        if missing:
            raise CommandError(
                f"the hub's connection string has no {', '.join(sorted(missing))}: it is the one "
                "of the service side, as `vedette hub up --json` prints it"
            )
        self.host = fields["HostName"]
        self.ca = ca
        self.policy = fields["SharedAccessKeyName"]
        self.key = fields["SharedAccessKey"]
        try:
            sas.decode_key(self.key)
        except sas.SasError as error:
            raise CommandError(f"the hub's connection string: {error}") from None
        self._mqtt_port = mqtt_port
        try:
            self._context = ssl.create_default_context(cafile=ca)
        except ssl.SSLError:
            raise CommandError(
                f"{ca} is not a certificate in PEM form: it is to be the hub's CA"
            ) from None
        except OSError as error:
            raise CommandError(f"cannot read the CA certificate {ca}: {error.strerror}") from None

    @classmethod
    def find(cls) -> HubConnection:
        """Errors: CommandError, NoHub."""
        if string := _string_from_environment():
            return cls(string, ca_from_environment(), _port_from_environment())
        path = state_directory() / "hub.json"
        try:
            document = json.loads(path.read_bytes())
            return cls(
                document["service_connection_string"], document["ca"], document["mqtt_port"]
            )
        except FileNotFoundError:
            raise NoHub(
                "no hub found",
                why=f"there is no {path}",
                next_step="Start one with `vedette hub up`, or set VEDETTE_HUB to a service "
                "connection string",
            ) from None
        except OSError as error:
            raise CommandError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CommandError(
                f"{path} is damaged: start the hub again, which writes it anew"
            ) from None

    @property
    def name(self) -> str:
        """The host, without a port."""
        return self.host.partition(":")[0]

    def token(self) -> str:
        """What proves to be the service side, for an hour."""
        return sas.make(self.host, self.key, policy=self.policy)

    def device_connection_string(self, record: Json) -> str:
        """What a device or module needs to connect; the port is in it unless it is 8883."""
        port = "" if self._mqtt_port == 8883 else f":{self._mqtt_port}"
        module = f";ModuleId={record['moduleId']}" if "moduleId" in record else ""
        key = record["authentication"]["symmetricKey"]["primaryKey"]
        proof = f"SharedAccessKey={key}" if key else "x509=true"
        return f"HostName={self.name}{port};DeviceId={record['deviceId']}{module};{proof}"

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> Any:
        """The answer's JSON, or None where it has none. Errors: CommandError, NotFound,
        NotLocal."""
        content = None if body is None else json.dumps(body)
        with self._response(method, path, {}, content, headers or {}, timeout) as response:
            try:
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise CommandError(f"the hub at {self.host} broke off: {error}") from None
        return json.loads(answer) if answer else None

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """The answer's lines as they come. Errors: CommandError, NotLocal."""
        with self._response("GET", path, query, None, {}, None) as response:
            try:
                yield from response
            except (OSError, http.client.HTTPException):
                return  # the hub was stopped

    @contextmanager
    def _response(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        content: str | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        target = f"{path}?{urlencode({'api-version': API_VERSION, **query})}"
        proof = {"Authorization": self.token()}
        try:
            with closing(
                http.client.HTTPSConnection(self.host, context=self._context, timeout=TIMEOUT_S)
            ) as connection:
                connection.request(method, target, content, {**proof, **headers})
                if connection.sock:
                    connection.sock.settimeout(timeout)
                response = connection.getresponse()
                if path.startswith(LOCAL) and response.getheader("Server") != NAME:
                    raise NotLocal(f"{self.host} is no local hub, and only that can do this")
                if response.status >= 400:
                    raise _error(response)
                yield response
        except ssl.SSLCertVerificationError as error:
            raise CommandError(
                f"the certificate of {self.host} is not trusted ({error.verify_message}): set "
                "VEDETTE_HUB_CA to the hub's ca.pem"
            ) from None
        except OSError as error:
            raise CommandError(
                f"the hub at {self.host} does not answer ({error.strerror or error}). "
                "Is `vedette hub up` running?"
            ) from None
        except (http.client.HTTPException, UnicodeError) as error:  # the latter: no host's name
            raise CommandError(
                f"{self.host} is not reached as a hub",
                why=str(error).strip(),
                next_step="look at HostName in the hub's connection string: a host, or host:port",
            ) from None


def identity_path(device: str, module: str | None) -> str:
    """As in the REST API: `{device}[/modules/{module}]`. Errors: CommandError."""
    if not device:  # the path would lead to all devices
        raise CommandError("the device's id is empty")
    below = f"/modules/{quote(module, safe='')}" if module else ""
    return quote(device, safe="") + below


def event_hub_from_environment() -> dict[str, str] | None:
    """The fields of VEDETTE_HUB where that is an Event Hub. Errors: CommandError."""
    fields = parse_connection_string(_string_from_environment() or "")
    return fields if "Endpoint" in fields else None


def _string_from_environment() -> str | None:
    path = os.environ.get("VEDETTE_HUB_FILE")
    if not path:
        return os.environ.get("VEDETTE_HUB")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read VEDETTE_HUB_FILE, {path}", why=reason(error)) from None


def ca_from_environment() -> str | None:
    return os.environ.get("VEDETTE_HUB_CA")


def _port_from_environment() -> int:
    text = os.environ.get("VEDETTE_HUB_MQTT_PORT", "8883")
    if not text.isdigit():
        raise CommandError("VEDETTE_HUB_MQTT_PORT is not a port number")
    return int(text)


def _error(response: http.client.HTTPResponse) -> CommandError:
    what, why, next_step = f"the hub answered {response.status} {response.reason}", "", ""
    try:
        answer = json.loads(response.read())
        # "ErrorCode:CODE;TEXT"; Azure's hub says in ExceptionMessage how its makers find the case.
        # A bulk change is answered with the latter alone.
        message, why = answer.get("Message", ""), answer.get("ExceptionMessage", "")
        what = message.partition(";")[2] or message or why or what
        next_step = answer.get("NextStep", "")
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        pass  # an answer without these
    kind = NotFound if response.status == 404 else CommandError
    return kind(what, why="" if why == what else why, next_step=next_step)
