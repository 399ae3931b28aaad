"""The client: stays connected, and shares the connection between all who use it."""

import asyncio
import os
import sys
from time import ticks_add, ticks_ms

from micropython import const

from . import bag, clock
from .errors import HubError
from .link import Link, tls_context
from .mqtt import Mqtt, wait_until
from .twin import DESIRED, RESPONSES, Twin

_TICK_MS = const(500)
_CONNECT_S = const(30)  # from the first packet to the hub's acceptance
_SUBSCRIBE_MS = const(30000)
_BACKOFF_MS = const(1000)  # doubles with each failure
_DOUBLINGS = const(7)  # at most: 128 s
_STABLE_S = const(60)  # a connection that held so long ends the back-off
_MAX_FAILURES = const(10)  # in a row, until the device is provisioned again
_MAX_KEEPALIVE = const(1177)  # the hub cuts at 1.5 times, and at 1767 s in any case
_MAX_BODY = const(262144)  # bytes of a message: the hub's limit
_MAX_BAG = const(1024)  # bytes of a message's properties, encoded
_MAX_JUMP_S = const(30)  # that the wall clock may move against the uptime under a token


def _plain_socket(*args):
    import socket  # late: a tap may have put its own in place

    return socket.socket(*args)


class HubClient:
    """A device's connection to its hub, for the application and its libraries alike.

    `credentials` say who the device is, or `provisioning` finds that out (iothub.dps); `ca` lists
    the trusted root certificates (DER: bytes, or paths); `socket(family, type, proto)` makes the
    socket; `keepalive` in seconds, 1177 at most; with `clean_session` the hub keeps nothing while
    the device is away; `model_id` is its digital-twin model; messages to the device over
    `max_message` bytes are skipped and counted; a token is valid for `token_lifetime` seconds and
    replaced in time.
    """

    def __init__(
        self,
        credentials,
        ca,
        socket=_plain_socket,
        keepalive=240,
        clean_session=False,
        model_id=None,
        max_message=8192,
        token_lifetime=3600,
        provisioning=None,
    ):
        self.roots = ca  # used from the next connect on
        self.connected = False  # also while a connection is replaced as planned
        self.last_error = None  # the HubError that ended the last attempt; None while connected
        self._credentials = credentials or provisioning.remembered()
        self._provisioning = provisioning
        self._clean_session = clean_session
        self._model = "&model-id=" + bag.quote(model_id) if model_id else ""
        self._token_lifetime = token_lifetime
        self._mqtt = Mqtt(
            Link(socket),
            min(keepalive, _MAX_KEEPALIVE),
            max_message,
            self._on_up,
            self._on_message,
        )
        self.stats = self._mqtt.stats  # counters since the start, by name
        for name in ("connects", "renewals", "failures", "malformed", "callback_errors"):
            self.stats[name] = 0
        self._twin = Twin(self._mqtt, self.guard)
        self._routes = [
            (RESPONSES, 0, self._twin.on_response),
            (DESIRED, 0, self._twin.on_patch),
        ]
        self._methods = self._devicebound = None
        self._watchers = []
        self._task = None
        self._identity = None  # that the present connection was made as
        self._greeting = None
        self._fault = None
        self._failures = 0
        self._since = None  # uptime when the hub accepted the device
        self._renew = False

    def start(self):
        """Begins to connect, and to connect again whenever that is lost. Returns the task."""
        if not self._task:
            self._task = asyncio.create_task(self._run())
        return self._task

    async def stop(self):
        """Says goodbye and closes. Whoever waits gets HubError "stopped"."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass

    async def wait_connected(self, timeout=60):
        """HubError, the reason if one is known, when not connected within `timeout` seconds."""
        try:
            await wait_until(self._mqtt.up, _due(timeout))
        except HubError as e:
            raise self.last_error or e

    def on_connection(self, callback):
        """`callback(connected, reason)` when connected, and after each failure with a HubError."""
        self._watchers.append(callback)

    async def send(self, body, properties=None, timeout=60):
        """Sends `body` (bytes) with `properties` (a dict of strings), at least once.

        Returns when the hub has acknowledged it; a connection lost meanwhile is waited for.
        HubError: "timeout" after `timeout` seconds, "too-large", "stopped".
        """
        await self._publish(properties, timeout, len(body), body)

    async def send_stream(self, length, writer, properties=None, timeout=60):
        """Sends a message of `length` bytes that is never held as a whole.

        `writer(write)` is a coroutine function that awaits `write(chunk)` until all is written.
        It holds up all other messages meanwhile. Returns on acknowledgement; HubError also when
        the connection was lost: call it again then.
        """
        await self._publish(properties, timeout, length, None, writer)

    async def _publish(self, properties, timeout, length, body=None, writer=None):
        if length > _MAX_BODY:
            raise HubError("too-large", "a message of %d bytes; the hub takes 262144" % length)
        bag_text = bag.encode(properties) if properties else ""
        if len(bag_text) > _MAX_BAG:
            raise HubError("too-large", "the properties take over %d bytes" % _MAX_BAG)
        await self._mqtt.publish_acked(bag_text, _due(timeout), length, body, writer)

    def on_desired(self, callback):
        """`callback(desired, version, full)` for the twin's desired properties.

        With all of them (full) after each connect, and with what changed at each change.
        """
        self._twin.on_desired(callback)
        if self._greeting:
            asyncio.create_task(self._fetch_twin())

    async def report(self, patch):
        """Merges `patch` (a dict) into the twin's reported properties; their new version.

        HubError when that failed or the connection was lost: call it again then.
        """
        if not self.connected:
            raise HubError("closed", "not connected")
        return await self._twin.report(patch)

    def on_method(self, name, handler):
        """`handler(payload)`, a function or coroutine function, answers the direct method `name`.

        payload is the decoded JSON, or None; it returns (status, answer), answer as for JSON. One
        method runs after the other. The hub is told 404 for names without a handler, 500 when one
        raises.
        """
        if not self._methods:
            from .methods import Methods

            self._methods = Methods(self, self._mqtt)
        self._methods.add(name, handler)

    def on_message(self, callback):
        """`callback(body, properties)` for cloud-to-device messages, each at least once.

        body is a memoryview that is valid only during the call; properties a dict. The hub is
        told that the message has arrived when all callbacks have returned.
        """
        if not self._devicebound:
            from .devicebound import Devicebound

            self._devicebound = Devicebound(self, self._mqtt)
        self._devicebound.add(callback)

    def route(self, prefix, qos, handler):
        """`handler(topic, payload, packet_id)` for messages to topics that begin with `prefix`.

        What extends the client uses it; a prefix with "/" at its begin is below the device's own.
        """
        self._routes.append((prefix, qos, handler))
        if self._greeting:
            asyncio.create_task(self._subscribe(self._routes[-1:]))

    def reconnect(self):
        """Replaces the connection soon, without losing anything: with new roots, say."""
        self._renew = True

    def guard(self, callback, *args):
        """Calls `callback`; what it raises is printed and counted, and returned as None."""
        try:
            return callback(*args)
        except Exception as e:  # a callback's fault must not end the connection
            self.stats["callback_errors"] += 1
            sys.print_exception(e)

    async def _run(self):
        error = HubError("stopped", "the client was stopped")
        memory = HubError("memory", "the heap is full")  # made now: then there may be no room
        try:
            while True:
                try:
                    await self._session()
                    continue
                except HubError as e:
                    self._lost(e)
                except MemoryError:
                    self._lost(memory)
                except Exception as e:
                    self._lost(HubError("internal", "%s: %s" % (type(e).__name__, e)))
                await asyncio.sleep_ms(self._delay())
        finally:
            self._mqtt.goodbye()
            self._lost(error)

    async def _session(self):
        """One connection: returns when it is to be replaced, HubError when it failed."""
        if not clock.is_set():
            now = clock.utc(clock.unix())
            raise HubError("clock-not-set", "the clock says %s: set it (NTP) first" % now)
        self._fault = self._since = None
        self._renew = False
        self._identity = self._credentials or self._provisioning
        begun = clock.uptime()
        offset = clock.unix() - begun
        talk = asyncio.create_task(self._talk(self._identity))
        try:
            while not self._fault:
                await asyncio.sleep_ms(_TICK_MS)
                self._mqtt.check()
                age = clock.uptime() - begun
                if self._since is None:
                    if age > _CONNECT_S:
                        raise HubError("timeout", "the hub took too long to accept the device")
                elif not self._mqtt.alive:
                    raise self._fault or HubError("closed", "the connection broke")
                elif (
                    self._renew
                    or age * 4 >= self._token_lifetime * 3
                    or abs(clock.unix() - clock.uptime() - offset) > _MAX_JUMP_S
                ):
                    await self._mqtt.pause(self._token_lifetime * 50)  # a twentieth of it
                    self.stats["renewals"] += 1
                    self._mqtt.goodbye()
                    self._end(HubError("closed", "the connection is replaced"))
                    return
            raise self._fault
        finally:
            talk.cancel()

    async def _talk(self, identity):
        try:
            context = tls_context(self.roots, identity.certificate)
            await self._mqtt.sock.open(identity.host, identity.port, context)
            await self._mqtt.connect(
                identity.client_id,
                identity.user + self._model if identity is self._credentials else identity.user,
                identity.password(self._token_lifetime),
                self._clean_session,
            )
            await self._mqtt.read()
        except Exception as e:
            self._fault = e

    def _on_up(self):
        self._since = clock.uptime()
        self.stats["connects"] += 1
        self._greeting = asyncio.create_task(self._greet())
        if self._identity is self._credentials:
            self._mqtt.prefix = self._credentials.path + "/messages/events/"
            self._mqtt.up.set()
            self.last_error = None
            if not self.connected:
                self.connected = True
                self._tell(True, None)

    async def _greet(self):
        """Subscribes, and asks for what is to be known after each connect."""
        try:
            if not await self._subscribe(self._active_routes()):
                return
            if self._identity is self._credentials:
                await self._fetch_twin()
            else:
                self._credentials = await self._provisioning.register(self._mqtt)
                self._renew = True
        except Exception as e:  # half a greeting is none: the connection is made again
            self._fault = e

    def _active_routes(self):
        return self._routes if self._identity is self._credentials else self._provisioning.routes

    def _topic(self, prefix):
        return self._identity.path + prefix if prefix[0] == "/" else prefix

    async def _subscribe(self, routes):
        filters = [(self._topic(prefix) + "#", qos) for prefix, qos, _ in routes]
        try:
            await self._mqtt.subscribe(filters, ticks_add(ticks_ms(), _SUBSCRIBE_MS))
            return True
        except HubError as e:
            if self._mqtt.alive:
                self._fault = e
            return False

    async def _fetch_twin(self):
        try:
            await self._twin.fetch()
        except HubError as e:
            if self._mqtt.alive:
                self.last_error = e

    def _end(self, error):
        self._greeting = None
        self._mqtt.lost(error)

    def _lost(self, error):
        held = self._since is not None and clock.uptime() - self._since >= _STABLE_S
        self.last_error = error
        stopped = error.code == "stopped"
        if stopped or error.code == "memory":
            self._end(error)
        else:
            self._end(HubError("closed", "the connection was lost"))
        if held or error.code == "clock-not-set":
            self._failures = 0
        if not stopped:
            self.stats["failures"] += 1
            self._failures += 1
            self._provision_again(error)
        self.connected = False
        self._tell(False, error)

    def _provision_again(self, error):
        if not self._provisioning or not self._identity:
            return
        if self._identity is self._provisioning:
            self._credentials = self._provisioning.remembered()
        elif error.code == "refused" or self._failures >= _MAX_FAILURES:
            self._failures = 0
            self._credentials = None

    def _tell(self, connected, reason):
        for callback in self._watchers:
            self.guard(callback, connected, reason)

    def _delay(self):
        """Milliseconds until the next attempt: doubling, and half of it random."""
        half = _BACKOFF_MS << min(max(self._failures - 1, 0), _DOUBLINGS) >> 1
        return half + half * os.urandom(1)[0] // 255

    def _on_message(self, topic, payload, packet_id):
        for prefix, _, handler in self._active_routes():
            if topic.startswith(self._topic(prefix)):
                try:
                    handler(topic, payload, packet_id)
                except Exception:  # whatever the hub sends must not end the client
                    self.stats["malformed"] += 1
                return
        self.stats["malformed"] += 1


def _due(seconds):
    return ticks_add(ticks_ms(), int(seconds * 1000))
