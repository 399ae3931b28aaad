"""Reads a hub's events where Azure has them: at its built-in endpoint, which is an Event Hub.

Microsoft's azure-eventhub does the reading. It takes the place of a partition from us, and calls
back; all of it happens in one thread.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from azure.core.credentials import AzureNamedKeyCredential
from azure.eventhub import EventData, EventHubConsumerClient, PartitionContext
from azure.eventhub._pyamqp import ReceiveClient
from azure.eventhub._pyamqp.authentication import SASLPlainAuth
from azure.eventhub._pyamqp.error import AMQPException, AMQPLinkRedirect
from azure.eventhub.amqp import AmqpMessageBodyType
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from vedette_tools.connection import HubConnection
from vedette_tools.errors import CommandError, reason
from vedette_tools.hub import agent_schema, bag, event_lines
from vedette_tools.hub.store import Event

GROUP = "$Default"
BUILT_IN = f"messages/events/ConsumerGroups/{GROUP}/Partitions/0"
ANSWER_S = 20
RETRIES, RETRY_S = 2, 0.3  # the pause is doubled each time
WAIT_S = 1  # for more, before what came is shown
IDLE = 10  # waits in which nothing came: a partition has no more, whatever it said before

Show = Callable[[str], None]


@dataclass(frozen=True)
class Endpoint:
    """An Event Hub."""

    host: str
    name: str
    policy: str
    key: str = field(repr=False)

    @classmethod
    def named(cls, fields: Mapping[str, str]) -> Endpoint:
        """By a connection string. Errors: CommandError."""
        missing = {"Endpoint", "SharedAccessKeyName", "SharedAccessKey", "EntityPath"} - set(
            fields
        )
        host = re.fullmatch(r"sb://([^/]+)/?", fields.get("Endpoint", ""))
        if missing or not host:
            what = "its Endpoint is not sb://HOST/"
            raise CommandError(
                "the connection string of the Event Hub does not do",
                why=f"it has no {', '.join(sorted(missing))}" if missing else what,
                next_step="take the Event Hub-compatible one of the hub's built-in endpoints",
            )
        return cls(
            host[1], fields["EntityPath"], fields["SharedAccessKeyName"], fields["SharedAccessKey"]
        )

    @classmethod
    def behind(cls, hub: HubConnection) -> Endpoint:
        """The one that an IoT hub redirects to. Errors: CommandError."""
        name = hub.name
        # azure-eventhub itself does not follow, or tell of, a redirection.
        client: Any = ReceiveClient(  # type: ignore[no-untyped-call]
            name,
            f"amqps://{name}/{BUILT_IN}",
            auth=SASLPlainAuth(f"{hub.policy}@sas.root.{name.partition('.')[0]}", hub.token()),
            ssl_context=_trust(hub.ca),
        )
        try:
            client.receive_message_batch(max_batch_size=1, timeout=ANSWER_S)
        except AMQPLinkRedirect as redirect:
            if found := re.search(r":\d+/(.+)/ConsumerGroups/", redirect.address):
                return cls(redirect.hostname, found[1], hub.policy, hub.key)
        except (AMQPException, OSError, ValueError) as error:
            raise _failure(name, error) from None
        finally:
            client.close()
        raise CommandError(
            f"{name} does not say where its events are",
            next_step="set VEDETTE_HUB to the Event Hub-compatible connection string of its "
            "built-in endpoint, which `vedette events` takes too",
        )


@dataclass
class Wanted:
    """Which events: of one device; since a time, UTC; only the last so many of those there are;
    and, to `follow`, those that come."""

    device: str | None
    since: datetime | None
    last: int | None
    follow: bool


def read(endpoint: Endpoint, ca: str | None, wanted: Wanted, show: Show) -> None:
    """Calls `show` with each event as `vedette hub events` prints it: those of one device in
    their order. With `follow` it goes on for ever. Errors: CommandError."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # what it warns of is raised
    client = EventHubConsumerClient(
        endpoint.host,
        endpoint.name,
        GROUP,
        AzureNamedKeyCredential(endpoint.policy, endpoint.key),
        ssl_context=_trust(ca),
        retry_total=RETRIES,
        retry_backoff_factor=RETRY_S,
    )
    with client:
        try:
            _Reading(client, wanted, show).run()
        except BrokenPipeError:  # the reader of what is shown has gone
            raise
        except (EventHubError, OSError, ValueError) as error:
            raise _failure(endpoint.host, error) from None


class _Reading:
    def __init__(self, client: EventHubConsumerClient, wanted: Wanted, show: Show) -> None:
        self._client = client
        self._wanted = wanted
        self._show = show
        self._ends: dict[str, int] = {}  # of the partitions that were not read to there yet
        self._idle: dict[str, int] = {}  # waits in which nothing came, in a row, by partition
        self._held: list[tuple[int, str]] = []  # time and line, of which the last are wanted
        self._error: Exception | None = None

    def run(self) -> None:
        wanted = self._wanted
        starts: dict[str, Any] = {}
        for partition in self._client.get_partition_ids():
            there = self._client.get_partition_properties(partition)
            end = there["last_enqueued_sequence_number"]
            starts[partition] = wanted.since or "-1"
            if wanted.last and not (wanted.since or wanted.device):
                starts[partition] = max(end - wanted.last, -1)
            old = wanted.since and there["last_enqueued_time_utc"] < wanted.since
            if not (there["is_empty"] or old):
                self._ends[partition] = end
        if self._ends or wanted.follow:
            self._client.receive_batch(
                self._take,
                on_error=self._failed,
                starting_position=starts,
                starting_position_inclusive=wanted.since is not None,
                max_wait_time=WAIT_S,
            )
        if self._error:
            raise self._error

    def _take(self, context: PartitionContext, batch: list[EventData]) -> None:
        partition, number = context.partition_id, -1
        for received in batch:
            number = received.sequence_number or 0
            event = _event(received)
            if self._wanted.device in (None, event.device):
                line = event_lines.line(number, event)
                if self._wanted.last and self._ends:
                    self._held.append((event.time_ms, line))
                else:
                    self._show(line)
        self._idle[partition] = 0 if batch else self._idle.get(partition, 0) + 1
        end = self._ends.get(partition)
        if end is not None and (number >= end or self._idle[partition] == IDLE):
            del self._ends[partition]
            if not self._ends:
                self._reached()

    def _reached(self) -> None:
        """All that there was is read."""
        for _, line in sorted(self._held)[-(self._wanted.last or 0) :]:
            self._show(line)
        if not self._wanted.follow:
            self._client.close()

    def _failed(self, context: PartitionContext, error: Exception) -> None:
        self._error = error
        self._client.close()


def _event(received: EventData) -> Event:
    """As the local hub stores one."""
    given = {_text(name): value for name, value in received.system_properties.items()}
    own = {_text(name): _text(value) for name, value in (received.properties or {}).items()}
    system = {
        key: _text(given[name]) for key, name in bag.NAMES_OF_EVENTS.items() if name in given
    }
    content: Any = received.body
    is_data = received.body_type is AmqpMessageBodyType.DATA  # as all that devices send
    body = b"".join(content) if is_data else received.body_as_str().encode()
    of_agent = system.get("$.ifid") == agent_schema.INTERFACE
    return Event(
        _text(given.get("iothub-connection-device-id", "")),
        _text(given.get("iothub-connection-module-id", "")),
        given.get("x-opt-enqueued-time", 0),
        bag.encode({**own, **system}),
        body,
        agent_schema.error_of(body) if of_agent else None,
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _trust(ca: str | None) -> ssl.SSLContext:
    """The system's authorities, and the hub's where it has one of its own: an Event Hub need not
    have the hub's. Errors: CommandError."""
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise CommandError(f"cannot read the CA certificate {ca}", why=reason(error)) from None
    return context


def _failure(host: str, error: Exception) -> CommandError:
    why = str(error).strip().partition("\n")[0]
    if isinstance(error, AuthenticationError) or why.startswith("SASL negotiation failed"):
        return CommandError(
            f"{host} refuses the key",
            why=why,
            next_step="take the connection string of a policy with the right ServiceConnect, "
            "such as `service`",
        )
    next_step = ""
    if "CERTIFICATE_VERIFY" in why:
        next_step = "set VEDETTE_HUB_CA to a file with its authority"
    elif getattr(error, "error", None) == "not-found":
        next_step = "look at EntityPath in the connection string: that is its name there"
    return CommandError(f"cannot read the events of {host}", why=why, next_step=next_step)
