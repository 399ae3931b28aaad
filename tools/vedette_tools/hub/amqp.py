"""The endpoint for Microsoft's service SDKs by AMQP 1.0: cloud-to-device messages, and feedback.

A client proves itself with a shared access signature on the node `$cbs` (claims-based security,
OASIS "AMQP Claims-based Security"; SASL itself lets everybody in), then sends to
`/messages/devicebound`, or receives from `/messages/serviceBound/feedback`. Apache Qpid Proton
speaks the protocol; it is installed with the extra `vedette-tools[amqp]`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote

from proton import (  # type: ignore[import-not-found,unused-ignore]
    Collector,
    Condition,
    Connection,
    Delivery,
    Endpoint,
    Event,
    Message,
    ProtonException,
    Receiver,
    Sender,
    Transport,
    int32,
)

from vedette_tools.hub import bag, cloud_to_device
from vedette_tools.hub.errors import RequestError
from vedette_tools.hub.feedback import Feedback
from vedette_tools.hub.identity import Identity

log = logging.getLogger("vedette.hub.amqp")

CBS = "$cbs"
DEVICE_BOUND = "/messages/devicebound"
FEEDBACK = "/messages/serviceBound/feedback"
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

CheckToken = Callable[[str], None]
Send = Callable[[Identity, bag.Bag, bytes, float], Awaitable[None]]


class AmqpServer:
    def __init__(self, check_token: CheckToken, send: Send, feedback: Feedback) -> None:
        """`check_token` raises RequestError for a token that is not the owner's; `send` is to send
        a device a message (properties, body, lifetime in seconds)."""
        self._make = lambda: AmqpConnection(check_token, send, feedback)
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

    def __init__(self, check_token: CheckToken, send: Send, feedback: Feedback) -> None:
        self._check_token = check_token
        self._send = send
        self._feedback = feedback
        self._trusted = False
        self._greeting: bytearray | None = bytearray()  # of SASL; None once that is over
        self._amqp = Transport(Transport.SERVER)
        self._connection = Connection()
        self._collector = Collector()
        self._connection.collect(self._collector)
        self._amqp.bind(self._connection)
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeds: dict[str, asyncio.Task[None]] = {}  # by their link's name
        self._outcomes: dict[str, asyncio.Future[Any]] = {}  # by a delivery's tag
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
        self._transport.write(_SASL_OK)
        rest, self._greeting = bytes(self._greeting[end:]), None
        return rest

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
            self._transport.write(self._amqp.peek(size) or b"")
            self._amqp.pop(size)
        if self._amqp.closed:
            self._transport.close()

    def _handle(self, event: Any) -> None:
        match event.type:
            case Event.CONNECTION_REMOTE_OPEN:
                self._connection.container = "vedette"
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
            case Event.LINK_REMOTE_CLOSE | Event.LINK_REMOTE_DETACH:
                if feed := self._feeds.pop(event.link.name, None):
                    feed.cancel()
                event.link.close()
            case Event.SESSION_REMOTE_CLOSE:
                event.session.close()
            case Event.CONNECTION_REMOTE_CLOSE:
                self._connection.close()

    def _attach(self, link: Any) -> None:
        receives = isinstance(link, Receiver)
        terminus = link.remote_target if receives else link.remote_source
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.open()
        # uamqp addresses a node by its URL.
        nodes = (CBS, DEVICE_BOUND) if receives else (CBS, FEEDBACK)
        if not (terminus.address or "").endswith(nodes):
            link.condition = Condition("amqp:not-found", f"no such node: {terminus.address}")
            link.close()
        elif receives:
            link.flow(CREDIT)
        elif terminus.address != CBS and not self._trusted:
            link.condition = Condition("amqp:unauthorized-access", "no token was put")
            link.close()
        elif terminus.address != CBS:
            self._feeds[link.name] = self._background(self._feed(link))

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
        if link.target.address == CBS:
            self._put_token(link.session, message)
            self._settle(delivery)
        elif not self._trusted:
            self._settle(delivery, RequestError(401, "no token was put"))
        else:
            self._background(self._pass_on(delivery, message))

    def _put_token(self, session: Any, request: Any) -> None:
        status, description = 200, "OK"
        try:
            self._check_token(str(request.body))
            self._trusted = True
        except RequestError as error:
            log.warning("a service client is refused: %s", error.message)
            status, description = error.status, error.message
        answer = Message(
            correlation_id=request.id,
            properties={"status-code": int32(status), "status-description": description},
        )
        link = self._connection.link_head(Endpoint.LOCAL_ACTIVE)
        while link and not (isinstance(link, Sender) and link.source.address == CBS):
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

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
