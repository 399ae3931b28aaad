"""The client: stays connected, and shares the connection between all who use it.

Source: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
"""

import asyncio
import os
import sys

from micropython import const

from . import clock
from .encoding import encode, quote
from .errors import HubError, cold
from .mqtt import Session, due, wait_until

# What callbacks are for.
CONNECTION = const(0)
DESIRED = const(1)
MESSAGE = const(2)

_BACKOFF_MS = const(1000)  # doubles with each failure
_DOUBLINGS = const(7)  # at most: 128 s
_STABLE_S = const(60)  # a connection that held so long ends the back-off
_MAX_FAILURES = const(10)  # in a row, until the device is provisioned again
_MAX_BODY = const(262144)  # bytes of a message: the hub's limit
_MAX_BAG = const(1024)  # bytes of a message's properties, encoded


class Credentials:
    """A device, or one of its modules, with its symmetric key (the bytes, not the base64).

    Or with `certificate`: a pair, the X.509 certificate and its private key, both in DER form
    (bytes, or paths); `key` is None then.
    """

    policy = None

    def __init__(self, host, device_id, key, module_id=None, port=8883, certificate=None):
        self.host = host
        self.port = port
        self.key = key
        self.certificate = certificate
        self.client_id = device_id
        self.path = "devices/" + quote(device_id)  # of the identity, in topics
        self.resource = host + "/devices/" + device_id  # that its token is for
        if module_id:
            self.client_id += "/" + module_id
            self.path += "/modules/" + quote(module_id)
            self.resource += "/modules/" + module_id
        self.user = host + "/" + self.client_id + "/?api-version=2021-04-12"

    @classmethod
    def parse(cls, text, certificate=None):
        """Credentials of "HostName=H[:PORT];DeviceId=D;[ModuleId=M;]SharedAccessKey=K".

        With `certificate` "x509=true" stands in the key's place. HubError "credentials" says what
        is wrong, without a value: values may be secret.
        """
        return cls(*cold("keys", "parse", text, certificate))


class HubClient:
    """A device's connection to its hub, for the application and its libraries alike.

    `credentials` say who the device is, or `provisioning` finds that out (iothub.dps); `ca` lists
    the trusted root certificates (DER: bytes, or paths). Options: `socket(family, type, proto)`
    makes the socket; `keepalive` in seconds (240), 1177 at most; with `clean_session` the hub
    keeps nothing while the device is away; `model_id` is its digital-twin model; messages to the
    device over `max_message` bytes (8192) are skipped and counted; a token is valid for
    `token_lifetime` seconds (3600) and replaced in time.
    """

    def __init__(self, credentials, ca, provisioning=None, **options):
        self.roots = ca  # used from the next connect on
        self.connected = False  # also while a connection is replaced as planned
        self.last_error = None  # the HubError that ended the last attempt; None while connected
        self.stats = {  # counters since the start
            "connects": 0,
            "renewals": 0,
            "failures": 0,
            "acked": 0,
            "retried": 0,
            "oversized": 0,
            "malformed": 0,
            "callback_errors": 0,
        }
        self.session = Session(self._on_tick, self._on_message, self.stats, **options)
        self.credentials = credentials
        self.provisioning = provisioning
        self.routes = [
            ("$iothub/twin/res/", 0, self._on_twin),
            ("$iothub/twin/PATCH/properties/desired/", 0, self._on_twin),
        ]
        self.callbacks = []  # (what it is for: CONNECTION and so on, or a method's name; callback)
        self.version = 0  # of the desired properties that they were told last
        self.calls = None  # of methods, that run or wait; None until there is one
        self.serving = None  # the task that runs them
        self._devicebound = None
        self._task = self._greeting = None
        self._greeted = False  # all that is subscribed to and asked for after a connect
        self._failures = 0

    def start(self):
        """Begins to connect, and to connect again whenever that is lost. Returns the task."""
        if not self._task:
            self._task = asyncio.create_task(self._run())
        return self._task

    async def stop(self):
        """Says goodbye and closes. Whoever waits for the hub's answer gets HubError "stopped"."""
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
            await wait_until(self.session.up, due(timeout))
        except HubError as e:
            raise self.last_error or e

    def on_connection(self, callback):
        """`callback(connected, reason)` when connected, and after each failure with a HubError."""
        self.callbacks.append((CONNECTION, callback))

    async def send(self, body, properties=None, timeout=60):
        """Sends `body` (bytes) with `properties` (a dict of strings), at least once.

        Returns when the hub has acknowledged it; a connection lost meanwhile is waited for.
        HubError: "timeout" after `timeout` seconds, "too-large", "stopped".
        """
        await self.send_stream(len(body), body, properties, timeout)

    async def send_stream(self, length, writer, properties=None, timeout=60):
        """Sends a message of `length` bytes that is never held as a whole.

        `writer(write)` is a coroutine function that awaits `write(chunk)` until all is written.
        It holds up all other messages meanwhile. Returns on acknowledgement; HubError also when
        the connection was lost: call it again then.
        """
        topic = encode(properties) if properties else ""
        if length > _MAX_BODY or len(topic) > _MAX_BAG:
            raise HubError("too-large", "%d bytes, %d of properties" % (length, len(topic)))
        await self.session.send(topic, due(timeout), length, writer)

    def on_desired(self, callback):
        """`callback(desired, version, full)` for the twin's desired properties.

        With all of them (full) after each connect and when a callback was added since, and with
        what changed at each change.
        """
        self.callbacks.append((DESIRED, callback))
        self._greeted = False

    async def report(self, patch):
        """Merges `patch` (a dict) into the twin's reported properties; their new version.

        HubError when that failed or the connection was lost: call it again then.
        """
        return await cold("twin", "report", self, patch)

    async def twin(self):
        """The twin as it is now: a dict with the dicts "desired" and "reported"; HubError."""
        return await cold("twin", "fetch", self)

    def on_method(self, name, callback):
        """`callback(payload)`, a function or coroutine function, answers the direct method `name`.

        payload is the decoded JSON, or None; it returns (status, answer), answer as for JSON. One
        method runs after the other. The hub is told 404 for names without a callback, 500 when
        one raises.
        """
        if self.calls is None:
            self.calls = []
            self.route("$iothub/methods/POST/", 0, self._on_call)
        if self.callback(name):
            raise ValueError("a callback for %s is there already" % name)
        self.callbacks.append((name, callback))

    def on_message(self, callback):
        """`callback(body, properties)` for cloud-to-device messages, each at least once.

        body is a memoryview that is valid only during the call; properties a dict. The hub is
        told that the message has arrived when all callbacks have returned.
        """
        if not self._devicebound:
            from .devicebound import Devicebound

            self._devicebound = Devicebound(self)
        self.callbacks.append((MESSAGE, callback))

    def forget(self, callback):
        """`callback` is not called any more, whichever of the calls above it was given to."""
        self.callbacks = [each for each in self.callbacks if each[1] != callback]

    def route(self, prefix, qos, callback):
        """`callback(topic, payload, packet_id)` for messages to topics that begin with `prefix`.

        What extends the client uses it; a prefix with "/" at its begin is below the device's own.
        """
        self.routes.append((prefix, qos, callback))
        self._greeted = False

    def reconnect(self):
        """Replaces the connection soon, without losing anything: with new roots, say."""
        self.session.renew = True

    def callback(self, what):
        """The first callback for that, None where there is none."""
        for each, callback in self.callbacks:
            if each == what:
                return callback

    def tell(self, what, *args):
        """Calls all callbacks for that."""
        for each, callback in self.callbacks:
            if each == what:
                self.guard(callback, *args)

    def guard(self, callback, *args):
        """Calls `callback`; what it raises is printed and counted, and returned as None."""
        try:
            return callback(*args)
        except Exception as e:  # a callback's fault must not end the connection
            self.stats["callback_errors"] += 1
            sys.print_exception(e)

    # --- staying connected ---

    async def _run(self):
        try:
            while True:
                error = None
                delay = 0
                try:
                    if not self.credentials:
                        self.credentials = await self.provisioning.assign(self)
                    await self.session.run(self.credentials, self.roots)
                    self.stats["renewals"] += 1
                    self._failures = 0
                except Exception as e:
                    error = e
                try:
                    if self._greeting:
                        self._greeting.cancel()
                    if error:
                        delay = self._lost(error)
                except MemoryError:
                    delay = _BACKOFF_MS  # whatever happens, it goes on
                await asyncio.sleep_ms(delay)
        finally:
            self._lost(HubError("stopped"))

    def _lost(self, error):
        """Milliseconds until the next attempt: doubling, and half of it random."""
        self.connected = False
        if isinstance(error, MemoryError):
            error = HubError("memory")
        elif not isinstance(error, HubError):
            error = HubError("internal", "%s: %s" % (type(error).__name__, error))
        self.last_error = error
        since, self.session.since = self.session.since, None
        if not clock.is_set() or (since is not None and clock.uptime() - since >= _STABLE_S):
            self._failures = 0
        if error.code != "stopped":
            self.stats["failures"] += 1
            self._failures += 1
            if self.provisioning and (
                error.code == "refused" or self._failures % _MAX_FAILURES == 0
            ):
                self.credentials = None
        self.tell(CONNECTION, False, error)
        half = _BACKOFF_MS << min(max(self._failures - 1, 0), _DOUBLINGS) >> 1
        return half + half * os.urandom(1)[0] // 255

    def _on_tick(self, new):
        if new:
            self.stats["connects"] += 1
            self.session.prefix = self.credentials.path + "/messages/events/"
            self.session.up.set()
            self.last_error = None
            self._greeted = False
            if not self.connected:
                self.connected = True
                self.tell(CONNECTION, True, None)
        if self._greeting and self._greeting.done():
            self._greeting = None  # it keeps the code that greets loaded
        if not self._greeted and (new or not self._greeting):
            self._greeted = True
            self._greeting = asyncio.create_task(cold("twin", "greet", self))

    def topic(self, prefix):
        return self.credentials.path + prefix if prefix[0] == "/" else prefix

    def _on_message(self, topic, payload, packet_id):
        for prefix, _, handler in self.routes:
            if topic.startswith(self.topic(prefix)):
                try:
                    return handler(topic, payload, packet_id)
                except Exception:  # whatever the hub sends must not end the client
                    break
        self.stats["malformed"] += 1

    def _on_call(self, topic, payload, _packet_id):
        cold("calling", "hear", self, topic, payload)

    def _on_twin(self, topic, payload, _packet_id):
        try:
            cold("twin", "hear", self, topic, payload)
        except MemoryError:
            self._greeted = False  # a change would be lost: the whole twin is asked for
            raise
