"""Wires the parts together; the one module that knows them all."""

import asyncio
import gc
import os

from iothub import Credentials, HubClient, HubError, clock
from micropython import const
from nettap import sockets

from . import collectors, log, messages
from .cold import Cold, call
from .configuration import Configuration
from .journal import Journal
from .scheduler import Scheduler
from .sender import Sender
from .settings import COLLECTORS, Settings
from .store import FOLDER, Store

_STOP_S = const(10)
_HIGH = const(0)
_ALERTS_S = const(30)
_ROOM_S = const(30)
_METHODS = const("collectNow,getBaseline,getStatus,restart,selfTest")


def start(
    outbox,
    connection_string=None,
    ca=(),
    certificate=None,
    provisioning=None,
    client=None,
    module_identity=False,
    state=FOLDER,
    journal=True,
    watchdog=0,
    system=False,
):
    """Starts the agent beside the application, in its asyncio loop; returns the Agent.

    `vedette.start` takes `outbox_size` in place of `outbox`: bytes for what is not acknowledged.
    Either `connection_string` with `ca` (root certificates as DER: bytes or paths), and the agent
    has a hub client of its own; with `certificate`, a pair of certificate and private key as DER,
    no key is in the string. Or `provisioning` in place of the string: a dict of `scope`,
    `registration_id`, `key` unless there is a certificate, and `host`, as in
    iothub.dps.Provisioning. Or `client`, an iothub.HubClient that the application owns and
    starts, and `module_identity` says whether it is a module's. `state` is the folder that keeps
    the last good configuration, and with `journal` a copy of the outbox. `watchdog`, in seconds,
    starts the board's, fed as long as the loop lives. With `system`, on Linux, it watches all
    programs, not this one only.
    Errors: HubError "credentials" for a connection string or a key that is not one.
    """
    own = client is None
    if own:
        if provisioning:
            from iothub.dps import Provisioning

            identity = Provisioning(
                certificate=certificate, store=state + "/hub.json", **provisioning
            )
            client = HubClient(None, ca, identity, socket=sockets.own_socket)
        else:
            identity = Credentials.parse(connection_string or "", certificate)
            client = HubClient(identity, ca, socket=sockets.own_socket)
        module_identity = "/" in identity.client_id
    journal = state + "/journal" if journal else None
    agent = Agent(client, own, module_identity, Store(state), outbox, journal)
    with Cold():
        feed = agent.port().watchdog(watchdog) if watchdog else None
    if feed:
        agent.scheduler.every_beat(lambda _: feed())
    agent.watchdog = bool(feed)
    agent.system = system
    agent.start()
    return agent


class Agent:
    """Runs until `stop()`. Nothing in it raises into the application.

    `counters` holds what no part counts by itself. `journal` is the path of its file.
    """

    system = False

    def __init__(self, client, own_client, module_identity, store, outbox, journal=None):
        self.client = client
        self.store = store
        with Cold():
            self.settings = Settings(self.port().defaults())
        self.outbox = outbox
        self.scheduler = Scheduler(clock.uptime)
        self.sender = Sender(client, self.outbox, self.settings, self._identity())
        self.journal = Journal(journal, self.outbox, self.sender.day) if journal else None
        self.heap_low_water = gc.mem_free()
        self.known = {}  # what `alerts` has to remember
        self.since = {}  # when each collector's last event was made, in seconds of uptime
        self.counters = {
            "events_collected": 0,
            "events_refused": 0,
            "collections_deferred": 0,
            "settings_refused": 0,
            "app_errors": 0,
            "alerts_held_back": 0,
        }
        self._own_client = own_client
        self.configuration = Configuration(self, module_identity)
        self._resident = {}
        self.running = {}
        self._tasks = []
        self._told = ""  # the client's last error, once it is in the log

    def start(self):
        """Loads the last good configuration, starts the collectors and connects."""
        if self.journal:
            self.journal.load()
        self.configuration.load()
        for name in collectors.RESIDENT:
            self._resident[name] = collectors.load(name, self)  # None: not on this platform
        self.restart(COLLECTORS)
        self.scheduler.add("Alerts", self._check_alerts, _ALERTS_S, 0, _ALERTS_S)
        self.client.on_connection(self._on_connection)
        self.scheduler.every_beat(self._watch_connection)
        self.client.on_desired(self.configuration.on_desired)
        for name in _METHODS.split(","):
            self._offer(name)
        if self._own_client:
            self.client.start()
        self._tasks = [
            asyncio.create_task(self.scheduler.run(self._after_jobs)),
            asyncio.create_task(self.sender.run()),
            asyncio.create_task(self.configuration.run()),
        ]
        if self.journal:
            self._tasks.append(asyncio.create_task(self.journal.run()))

    async def stop(self, timeout=_STOP_S):
        """Hands over what was collected, sends what it can within `timeout` seconds, and ends."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self.hand_over()
        self._halt(COLLECTORS)
        try:
            await asyncio.wait_for(self.sender.flush(), timeout)
        except (HubError, asyncio.TimeoutError) as error:
            log.warning("stopped with %d collections unsent: %r" % (self.outbox.count, error))
        if self.journal:
            await self.journal.save()
        if self._own_client:
            await self.client.stop()

    async def reconnect(self):
        """Opens the agent's own hub connection anew; an application's is the application's."""
        if self._own_client:
            await self.client.stop()
            self.client.start()

    def hand_over(self):
        """Moves all that was collected into the outbox; False when it has no room for all."""
        attempt = self.scheduler.attempt
        return all([attempt(name, each.hand_over) for name, each in self.running.items()])

    def restart(self, names):
        """Stops these collectors, and starts those that the settings want, as they want them."""
        self._halt(names)
        for name in names:
            resident = self._resident.get(name, True)
            if resident and not self.settings[name + "_Disabled"]:
                self.since[name] = clock.uptime()
                if name in self._resident:
                    if self.scheduler.attempt(name, resident.start) is False:
                        continue
                    self.running[name] = resident
                priority, period, longest = self.settings.schedule(name)
                order = priority * len(COLLECTORS) + COLLECTORS.index(name)
                self.scheduler.add(name, self.collect, period, order, longest)

    def _halt(self, names):
        for name in names:
            self.scheduler.remove(name)
            resident = self.running.pop(name, None)
            if resident:
                self.scheduler.attempt(name, resident.stop)

    async def _check_alerts(self, _):
        with Cold():
            from . import alerts

            await alerts.check(self)

    def _offer(self, method):
        try:
            self.client.on_method(
                method, lambda payload: call("methods", "answer", self, method, payload)
            )
        except ValueError:
            log.warning("the application has a method %s: the agent's is not offered" % method)

    async def collect(self, name):
        """Has a collector hand over what it has; False where there is none of that name."""
        if name in self.running:
            await self.running[name].collect()
            return True
        with Cold():
            collector = None if name in self._resident else collectors.load(name, self)
            if collector:
                await collector.collect()
        return collector is not None

    async def deliver(self, name, pieces, seconds):
        """Puts an event of text (a list of str) that covers `seconds` into the outbox.

        Waits for room, as what is in it may be on its way; but not for long: then it is lost.
        """
        for _ in range(_ROOM_S):
            if self.add(name, pieces, seconds):
                return
            self.sender.wake()
            await asyncio.sleep(1)
        self._lose(name)

    def add(self, name, pieces, seconds):
        """Puts an event into the outbox at once; False when it has no room."""
        return self._add(pieces, self.settings.schedule(name)[0], seconds)

    def complain(self, key, reason):
        """Tells of a setting that does not do: in the log, and as a ConfigurationError event."""
        log.warning("%s: %s" % (key, reason))
        self.tell("ConfigurationError", "key,reason", [key, reason])

    def alert(self, rule, title, description, severity):
        """Makes an Alert event, which is sent at once."""
        columns = "rule,title,description,severity"
        self.tell("Alert", columns, [rule, title, description, severity], "Security")
        self.sender.wake()

    def tell(self, name, columns, row, event_type="Diagnostic"):
        """Puts an event of one row that no collector made into the outbox, as High.

        False when it has no room.
        """
        pieces = [messages.head(name, event_type, "Triggered")]
        pieces += messages.payload(columns, [row], self.objects)
        return self._add(pieces, _HIGH, 0) or self._lose(name)

    def _add(self, pieces, priority, seconds):
        pieces = [piece.encode() for piece in pieces]
        added = self.outbox.add(pieces, priority, clock.uptime(), seconds)
        self.counters["events_collected"] += added
        return added

    def _lose(self, name):
        self.counters["events_refused"] += 1
        log.warning("no room in the outbox: an event of %s is lost" % name)
        return False

    @property
    def objects(self):
        """Whether rows are to be objects, not columns."""
        return self.settings["Message_Format"] == "objects"

    def port(self):
        """The module that knows the platform; not kept."""
        from . import ports

        return ports.load()

    def _after_jobs(self):
        gc.collect()
        self.heap_low_water = min(self.heap_low_water, gc.mem_free())
        self.sender.wake()

    def _on_connection(self, connected, _):
        if connected:
            log.info("connected")
            self.sender.wake()

    def _watch_connection(self, _):
        error = str(self.client.last_error or "")
        if error != self._told:
            self._told = error
            if error:
                log.warning("hub: " + error)

    def _identity(self):
        """The UUID made once for the device and kept."""
        known = self.store.load("agent")
        if isinstance(known, dict) and isinstance(known.get("id"), str):
            return known["id"]
        made = messages.uuid(os.urandom(16))
        self.store.keep("agent", {"id": made})
        return made
