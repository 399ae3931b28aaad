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
_TOKEN_S = const(3600)
_BACKOFF_MS = const(1000)  # doubles with each failure
_DOUBLINGS = const(7)  # at most: 128 s
_STABLE_S = const(60)  # a connection that held so long ends the back-off
_MAX_KEEPALIVE = const(1177)  # the hub cuts at 1.5 times, and at 1767 s in any case
_MAX_BODY = const(262144)  # bytes of a message: the hub's limit


def _plain_socket(*args):
    import socket  # late: a tap may have put its own in place

    return socket.socket(*args)


class HubClient:
    """A device's connection to its hub, for the application and its libraries alike.

    `credentials` say who the device is; `ca` lists the trusted root certificates (DER: bytes, or
    paths); `socket(family, type, proto)` makes the socket; `keepalive` in seconds, 1177 at most;
    with `clean_session` the hub keeps nothing while the device is away; `model_id` is its
    digital-twin model; messages to the device over `max_message` bytes are skipped and counted.
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
    ):
        self.last_error = None  # the HubError that ended the last attempt; None while connected
        self._credentials = credentials
        self._ca = ca
        self._clean_session = clean_session
        self._user = credentials.user
        if model_id:
            self._user += "&model-id=" + bag.quote(model_id)
        self._mqtt = Mqtt(
            Link(credentials.host, credentials.port, socket),
            min(keepalive, _MAX_KEEPALIVE),
            max_message,
            self._on_up,
            self._on_message,
        )
        self.stats = self._mqtt.stats  # counters since the start, by name
        self.stats.update({"connects": 0, "failures": 0, "malformed": 0, "callback_errors": 0})
        self._twin = Twin(self._mqtt, self._guard)
        self._routes = [
            (RESPONSES, 0, self._twin.on_response),
            (DESIRED, 0, self._twin.on_patch),
        ]
        self._watchers = []
        self._task = None
        self._welcome_task = None
        self._fault = None
        self._failures = 0
        self._since = None  # uptime when the hub accepted the device

    @property
    def connected(self):
        return self._mqtt.up.is_set()

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
        """`callback(connected, reason)`, after each change; reason is a HubError or None."""
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
        topic = self._credentials.path + "/messages/events/"
        if properties:
            topic += bag.encode(properties)
        await self._mqtt.publish_acked(topic, _due(timeout), length, body, writer)

    def on_desired(self, callback):
        """`callback(desired, version, full)` for the twin's desired properties.

        With all of them (full) after each connect, and with what changed at each change.
        """
        self._twin.on_desired(callback)
        if self.connected:
            asyncio.create_task(self._fetch_twin())

    async def report(self, patch):
        """Merges `patch` (a dict) into the twin's reported properties; their new version.

        HubError when that failed or the connection was lost: call it again then.
        """
        return await self._twin.report(patch)

    async def _run(self):
        error = HubError("stopped", "the client was stopped")
        try:
            while True:
                try:
                    await self._session()
                except HubError as e:
                    self._lost(e)
                except Exception as e:
                    self._lost(HubError("internal", "%s: %s" % (type(e).__name__, e)))
                await asyncio.sleep_ms(self._delay())
        finally:
            self._mqtt.goodbye()
            self._lost(error)

    async def _session(self):
        """One connection, from its beginning to the HubError that ends it."""
        if not clock.is_set():
            now = clock.utc(clock.unix())
            raise HubError("clock-not-set", "the clock says %s: set it (NTP) first" % now)
        self._fault = self._since = None
        give_up = clock.uptime() + _CONNECT_S
        talk = asyncio.create_task(self._talk())
        try:
            while not self._fault:
                await asyncio.sleep_ms(_TICK_MS)
                self._mqtt.check()
                if self._since is None:
                    if clock.uptime() > give_up:
                        raise HubError("timeout", "the hub took too long to accept the device")
                elif not self.connected:
                    break
            raise self._fault or HubError("closed", "the connection broke")
        finally:
            talk.cancel()

    async def _talk(self):
        credentials = self._credentials
        try:
            await self._mqtt.sock.open(tls_context(self._ca))
            await self._mqtt.connect(
                credentials.client_id,
                self._user,
                credentials.password(_TOKEN_S),
                self._clean_session,
            )
            await self._mqtt.read()
        except Exception as e:
            self._fault = e

    def _on_up(self):
        self._since = clock.uptime()
        self.last_error = None
        self.stats["connects"] += 1
        self._welcome_task = asyncio.create_task(self._welcome())
        for callback in self._watchers:
            self._guard(callback, True, None)

    async def _welcome(self):
        filters = [(prefix + "#", qos) for prefix, qos, _ in self._routes]
        try:
            await self._mqtt.subscribe(filters, ticks_add(ticks_ms(), _SUBSCRIBE_MS))
        except HubError as e:
            if self.connected:
                self._fault = e
        else:
            await self._fetch_twin()

    async def _fetch_twin(self):
        try:
            await self._twin.fetch()
        except HubError as e:
            if self.connected:
                self.last_error = e

    def _lost(self, error):
        was_up = self._since is not None
        held = was_up and clock.uptime() - self._since >= _STABLE_S
        if held or error.code == "clock-not-set":
            self._failures = 0
        self._since = None
        self.last_error = error
        stopped = error.code == "stopped"
        self._mqtt.lost(error if stopped else HubError("closed", "the connection was lost"))
        if not stopped:
            self.stats["failures"] += 1
        if was_up:
            for callback in self._watchers:
                self._guard(callback, False, error)

    def _delay(self):
        """Milliseconds until the next attempt: doubling, and half of it random."""
        half = _BACKOFF_MS << min(self._failures, _DOUBLINGS) >> 1
        self._failures += 1
        return half + half * os.urandom(1)[0] // 255

    def _on_message(self, topic, payload, packet_id):
        for prefix, _, handler in self._routes:
            if topic.startswith(prefix):
                try:
                    handler(topic, payload, packet_id)
                except Exception:  # whatever the hub sends must not end the client
                    self.stats["malformed"] += 1
                return
        self.stats["malformed"] += 1

    def _guard(self, callback, *args):
        try:
            callback(*args)
        except Exception as e:  # a callback's fault must not end the connection
            self.stats["callback_errors"] += 1
            sys.print_exception(e)


def _due(seconds):
    return ticks_add(ticks_ms(), int(seconds * 1000))
