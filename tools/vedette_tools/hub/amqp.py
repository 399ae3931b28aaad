"""The endpoint for Microsoft's service SDKs by AMQP 1.0: cloud-to-device messages, their feedback,
and events.

A client proves itself with a shared access signature: on the node `$cbs` (claims-based security,
OASIS "AMQP Claims-based Security"), or as its password in SASL, which lets in those without one.
Then it sends to `/messages/devicebound`, receives from `/messages/serviceBound/feedback`, or reads
events as from an Event Hub; IoT Hub's own address of them, `/messages/events`, redirects to that.
Apache Qpid Proton speaks the protocol; it is installed with the extra `vedette-tools[amqp]`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote

from proton import (  # type: ignore[import-not-found,unused-ignore]
    Collector,
    Condition,
    Connection,
    Data,
    Delivery,
    Endpoint,
    Event,
    Message,
    ProtonException,
    Receiver,
    Sender,
    Transport,
    int32,
    symbol,
)

from vedette_tools.hub import NAME, bag, cloud_to_device
from vedette_tools.hub.amqp_frames import Frames
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.event_hub import EventHub
from vedette_tools.hub.feedback import Feedback
from vedette_tools.hub.identity import Identity
from vedette_tools.hub.service import EVENTS, HUB_ITSELF

log = logging.getLogger("vedette.hub.amqp")

# Nodes, as `_node` gives them.
CBS = "$cbs"
DEVICE_BOUND = "messages/devicebound"
FEEDBACK = "messages/serviceBound/feedback"
MANAGEMENT = "$management"
BUILT_IN = "messages/events/"
PARTITION = re.compile(rf"{NAME}/ConsumerGroups/[^/]+/Partitions/(\w+)")
FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"
CREDIT = 100
MESSAGE_MAX = 256 * 1024
SASL_INIT_MAX = 4096

# SASL (AMQP 1.0, part 5.3), in which all that the server says is known before: which mechanisms
# there are for the SDKs to choose from, and that the choice is right.
_SASL_HEADER = b"AMQP\x03\x01\x00\x00"
_SASL_MECHANISMS = (
    bytes.fromhex("0000002a 02010000 005340 c01d 01 e01a 03 a3")
    + b"\x09ANONYMOUS\x07MSSBCBS\x05PLAIN"
)
_SASL_OK = bytes.fromhex("00000010 02010000 005344 c003 01 5000")
_SASL_REFUSED = bytes.fromhex("00000011 02010000 005344 c004 02 5001 40")

CheckToken = Callable[[str], str]
Send = Callable[[Identity, bag.Bag, bytes, float], Awaitable[None]]


class AmqpServer:
    def __init__(
        self, check_token: CheckToken, send: Send, feedback: Feedback, event_hub: EventHub
    ) -> None:
        """`check_token` says what the owner's token opens, and raises RequestError for another;
        `send` is to send a device a message (properties, body, lifetime in seconds)."""
        self._make = lambda: AmqpConnection(check_token, send, feedback, event_hub)
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int, context: ssl.SSLContext) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            self._make, address, port, ssl=context
        )

    def stop(self) -> None:
        if self._server:
            self._server.close()


class AmqpConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(
        self, check_token: CheckToken, send: Send, feedback: Feedback, event_hub: EventHub
    ) -> None:
        self._check_token = check_token
        self._send = send
        self._feedback = feedback
        self._event_hub = event_hub
        self._opened: set[str] = set()  # what its tokens open
        self._greeting: bytearray | None = bytearray()  # of SASL; None once that is over
        self._amqp = Transport(Transport.SERVER)
        self._frames = Frames()
        self._connection = Connection()
        self._collector = Collector()
        self._connection.collect(self._collector)
        self._amqp.bind(self._connection)
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: dict[str, asyncio.Task[None]] = {}  # by their link's name
        self._outcomes: dict[str, asyncio.Future[Any]] = {}  # by a delivery's tag
        self._credit = asyncio.Event()  # a link got some
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._amqp.unbind()

    def data_received(self, data: bytes) -> None:
        if self._greeting is not None:
            data = self._greet(data)
        while data and (size := self._amqp.capacity()) > 0:
            self._amqp.push(data[:size])
            data = data[size:]
            self._work()
        self._tick()

    def _greet(self, data: bytes) -> bytes:
        """Go through SASL, where the client wants it; returns what comes after."""
        assert self._greeting is not None
        at = len(_SASL_HEADER)
        told = len(self._greeting) >= at
        self._greeting += data
        if not _SASL_HEADER.startswith(self._greeting[:at]):
            begun, self._greeting = bytes(self._greeting), None
            return begun
        if len(self._greeting) >= at and not told:
            self._transport.write(_SASL_HEADER + _SASL_MECHANISMS)
        end = at + int.from_bytes(self._greeting[at : at + 4])  # of the frame with the choice
        if end > SASL_INIT_MAX:
            self._transport.abort()
        if len(self._greeting) < at + 4 or len(self._greeting) < end:
            return b""
        rest = bytes(self._greeting[end:])
        proven = self._proven(bytes(self._greeting[at:end]))
        self._transport.write(_SASL_OK if proven else _SASL_REFUSED)
        if not proven:
            self._transport.close()
            return b""
        self._greeting = None
        return rest

    def _proven(self, frame: bytes) -> bool:
        """Take the token out of SASL's choice, where one is there; False for a wrong one."""
        choice: Any = Data()
        try:
            choice.decode(frame[4 * frame[4] :])
            choice.next()
            mechanism, *response = choice.get_py_described().value
            if mechanism != "PLAIN":
                return True
            token = bytes(response[0]).rpartition(b"\0")[2].decode()
            self._opened.add(self._check_token(token))
        except RequestError as error:
            log.warning("a service client is refused: %s", error.message)
            return False
        except (ProtonException, ValueError, TypeError, AttributeError, IndexError):
            return False
        return True

    def _tick(self) -> None:
        """Keep the idle time-out that the client has asked for."""
        if self._timer:
            self._timer.cancel()
        due = self._amqp.tick(time.monotonic())
        self._flush()
        if due:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _work(self) -> None:
        while event := self._collector.peek():
            self._handle(event)
            self._collector.pop()
        self._flush()

    def _flush(self) -> None:
        while (size := self._amqp.pending()) > 0:
            self._transport.write(self._frames.whole(self._amqp.peek(size) or b""))
            self._amqp.pop(size)
        if self._amqp.closed:
            self._transport.close()

    def _handle(self, event: Any) -> None:
        match event.type:
            case Event.CONNECTION_REMOTE_OPEN:
                self._connection.container = NAME
                self._connection.open()
            case Event.SESSION_REMOTE_OPEN:
                event.session.open()
            case Event.LINK_REMOTE_OPEN:
                self._attach(event.link)
            case Event.DELIVERY if isinstance(event.link, Receiver):
                self._receive(event.link, event.delivery)
            case Event.DELIVERY if event.delivery.updated:
                if outcome := self._outcomes.get(event.delivery.tag):
                    outcome.set_result(event.delivery.remote_state)
                event.delivery.settle()
            case Event.LINK_FLOW:
                self._credit.set()
            case Event.LINK_REMOTE_CLOSE | Event.LINK_REMOTE_DETACH:
                if feed := self._feeds.pop(event.link.name, None):
                    feed.cancel()
                event.link.close()
            case Event.SESSION_REMOTE_CLOSE:
                event.session.close()
            case Event.CONNECTION_REMOTE_CLOSE:
                self._connection.close()

    def _attach(self, link: Any) -> None:
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.open()
        refusal = self._take(link) if isinstance(link, Receiver) else self._give(link)
        if refusal:
            link.condition = refusal
            link.close()

    def _take(self, link: Any) -> Condition | None:
        """Begin to receive; or why not."""
        if _node(link.target) not in (CBS, DEVICE_BOUND, MANAGEMENT):
            return Condition("amqp:not-found", f"no such node: {link.target.address}")
        link.flow(CREDIT)
        return None

    def _give(self, link: Any) -> Condition | None:
        """Begin to send; or why not."""
        node = _node(link.source)
        partition = PARTITION.fullmatch(node)
        if node in (CBS, MANAGEMENT):
            return None  # answers, to what is asked
        if node != FEEDBACK and not partition and not node.startswith(BUILT_IN):
            return Condition("amqp:not-found", f"no such node: {link.source.address}")
        if (EVENTS if partition else HUB_ITSELF) not in self._opened:
            return Condition("amqp:unauthorized-access", "no token was put")
        if node.startswith(BUILT_IN):
            return self._redirection(node.removeprefix(BUILT_IN))
        feed = self._feed_events(link, partition[1]) if partition else self._feed(link)
        self._feeds[link.name] = self._background(feed)
        return None

    def _redirection(self, rest: str) -> Condition:
        host = self._connection.remote_hostname
        port = self._transport.get_extra_info("sockname")[1]
        info = {
            "hostname": host,
            "network-host": host,
            "port": port,
            "address": f"amqps://{host}:{port}/{NAME}/{rest}",
        }
        return Condition("amqp:link:redirect", info={symbol(k): v for k, v in info.items()})

    def _receive(self, link: Any, delivery: Any) -> None:
        if delivery.pending > MESSAGE_MAX:
            link.condition = Condition("amqp:link:message-size-exceeded", "too large")
            link.close()
            return
        if delivery.partial or not delivery.readable:
            return
        message = Message()
        try:
            message.decode(link.recv(delivery.pending))
        except ProtonException as error:
            self._settle(delivery, RequestError(400, f"the message cannot be read: {error}"))
            return
        finally:
            link.advance()
            link.flow(1)
        node = _node(link.target)
        if node == CBS:
            self._put_token(message)
            self._settle(delivery)
        elif (EVENTS if node == MANAGEMENT else HUB_ITSELF) not in self._opened:
            self._settle(delivery, RequestError(401, "no token was put"))
        elif node == MANAGEMENT:
            self._settle(delivery)
            self._background(self._describe(message))
        else:
            self._background(self._pass_on(delivery, message))

    def _put_token(self, request: Any) -> None:
        error = None
        try:
            self._opened.add(self._check_token(str(request.body)))
        except RequestError as refused:
            log.warning("a service client is refused: %s", refused.message)
            error = refused
        self._answer(CBS, request, error=error)

    async def _describe(self, request: Any) -> None:
        body, error = None, None
        try:
            body = await self._event_hub.described(request.properties or {})
        except RequestError as refused:
            error = refused
        self._answer(MANAGEMENT, request, body, error)
        self._work()

    def _answer(
        self, node: str, request: Any, body: Any = None, error: RequestError | None = None
    ) -> None:
        status, description = (error.status, error.message) if error else (200, "OK")
        answer = Message(
            body,
            correlation_id=request.id,
            properties={"status-code": int32(status), "status-description": description},
        )
        link = self._connection.link_head(Endpoint.LOCAL_ACTIVE)
        while link and not (isinstance(link, Sender) and _node(link.source) == node):
            link = link.next(Endpoint.LOCAL_ACTIVE)
        if link:
            link.send(answer)

    async def _pass_on(self, delivery: Any, message: Any) -> None:
        error = None
        try:
            await self._send(*_cloud_message(message))
        except RequestError as refused:
            error = refused
        self._settle(delivery, error)
        self._work()

    async def _feed(self, link: Any) -> None:
        """Give a client what feedback there is, a batch after the other."""
        while True:
            batch = await self._feedback.take()
            tag = f"feedback-{min(batch)}"  # none of the tags that Proton gives
            try:
                self._outcomes[tag] = asyncio.get_running_loop().create_future()
                body = json.dumps(list(batch.values())).encode()
                link.send(Message(body, content_type=FEEDBACK_TYPE, inferred=True), tag)
                self._flush()
                if await self._outcomes[tag] in (Delivery.ACCEPTED, Delivery.REJECTED):
                    await self._feedback.complete(batch)
            finally:
                self._outcomes.pop(tag, None)
                self._feedback.release(batch)

    async def _feed_events(self, link: Any, partition: str) -> None:
        """Give a client a partition's events, as many at a time as it has room for."""
        try:
            async for message in self._event_hub.read(partition, _selector(link.remote_source)):
                while link.credit <= 0:
                    self._credit.clear()
                    await self._credit.wait()
                link.send(message).settle()
                self._flush()
        except RequestError as error:
            link.condition = Condition(_CONDITIONS[error.status], error.message)
            link.close()
            self._work()

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a service client's link failed", exc_info=error)
            self._transport.abort()

    def _settle(self, delivery: Any, error: RequestError | None = None) -> None:
        if error:
            condition = _CONDITIONS.get(error.status, "amqp:internal-error")
            delivery.local.condition = Condition(condition, error.message)
        delivery.update(Delivery.REJECTED if error else Delivery.ACCEPTED)
        delivery.settle()


_CONDITIONS = {
    400: "amqp:invalid-field",
    401: "amqp:unauthorized-access",
    403: "amqp:resource-limit-exceeded",
    404: "amqp:not-found",
    413: "amqp:link:message-size-exceeded",
}


def _node(terminus: Any) -> str:
    """The node that a link is for; uamqp addresses it by its URL."""
    return re.sub(r"^[a-z]+://[^/]*", "", terminus.address or "").strip("/")


def _selector(source: Any) -> str:
    """What a reader selects of a node's messages."""
    source.filter.rewind()
    filters = source.filter.get_object() if source.filter.next() else {}
    return "".join(str(each.value) for each in (filters or {}).values())


def _cloud_message(message: Any) -> tuple[Identity, bag.Bag, bytes, float]:
    """The device, properties, body and lifetime (seconds). Errors: RequestError (400)."""
    parts = (message.address or "").split("/")
    if len(parts) != 5 or parts[:2] != ["", "devices"] or parts[3:] != ["messages", "devicebound"]:
        raise RequestError(400, f"{message.address!r} is not /devices/ID/messages/devicebound")
    system = {
        "$.mid": message.id,
        "$.cid": message.correlation_id,
        "$.uid": message.user_id.decode(errors="replace") if message.user_id else None,
        "$.ct": message.content_type,
        "$.ce": message.content_encoding,
    }
    properties = {key: str(value) for key, value in system.items() if value}
    own = {str(key): str(value) for key, value in (message.properties or {}).items()}
    lifetime: float = cloud_to_device.LIFETIME_S
    if message.expiry_time:
        lifetime = max(0.0, message.expiry_time - time.time())
    body = message.body
    if isinstance(body, memoryview | bytes | bytearray):
        body = bytes(body)
    elif not isinstance(body, str):
        raise RequestError(400, "the body has to be data")
    return (
        Identity.checked(unquote(parts[2])),
        {**properties, **own},
        body if isinstance(body, bytes) else body.encode(),
        min(lifetime, cloud_to_device.LIFETIME_MAX_S),
    )
