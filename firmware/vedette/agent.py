"""Holds the parts together while they run; `lifecycle` begins and ends them."""

import asyncio
import gc

from iothub import clock
from micropython import const

from . import collectors, log
from .cold import Cold, call
from .configuration import Configuration
from .journal import Journal
from .scheduler import Scheduler
from .sender import Sender
from .settings import Settings

_STOP_S = const(10)
_HIGH = const(0)
_ROOM_S = const(30)


class Agent:
    """Runs until `stop()`. Nothing in it raises into the application.

    `counters` holds what no part counts by itself. `journal` is the path of its file.
    """

    system = False
    watchdog = None  # feeds the board's

    def __init__(self, client, own_client, module_identity, store, outbox, journal=None):
        self.client = client
        self.store = store
        with Cold():
            self.settings = Settings(self.port().defaults())
        self.outbox = outbox
        self.scheduler = Scheduler(clock.uptime)
        identity = call("lifecycle", "identity", store)
        self.sender = Sender(client, self.outbox, self.settings, identity)
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
        self.own_client = own_client
        self.configuration = Configuration(self, module_identity)
        self.resident = {}
        self.running = {}
        self.tasks = []
        self.callbacks = []  # that the client has
        self._told = ""  # the client's last error, once it is in the log

    async def stop(self, timeout=_STOP_S):
        """Hands over what was collected, sends what it can within `timeout` seconds, and ends."""
        with Cold():
            from . import lifecycle

            await lifecycle.end(self, timeout)

    async def go_on(self, run, *args):
        """Runs what runs for ever, and anew when not even a wait found heap for a while."""
        while True:
            try:
                await run(*args)
            except Exception as error:
                self.scheduler.errors += 1
                log.failed("the agent", error)
            await asyncio.sleep(1)

    async def check_alerts(self, _):
        with Cold():
            from . import alerts

            await alerts.check(self)

    def handler(self, method):
        """Returns the function that answers a direct method."""
        return lambda payload: call("methods", "answer", self, method, payload)

    async def collect(self, name):
        """Has a collector hand over what it has; False where there is none of that name."""
        with Cold():
            if name in self.resident:
                collector = self.running.get(name)
            else:
                collector = collectors.load(name, self)
            if collector:
                await collector.collect()
        return collector is not None

    async def deliver(self, name, pieces, seconds):
        """Puts an event of text (a list of str) that covers `seconds` into the outbox.

        Waits for room, as what is in it may be on its way; but not for long: then it is lost.
        """
        try:
            for _ in range(_ROOM_S):
                if self.add(name, pieces, seconds):
                    name = ""
                    break
                self.sender.wake()
                await asyncio.sleep(1)
        finally:  # also when the agent is stopped meanwhile, or a method takes too long
            if name:
                self._lose(name)

    def add(self, name, pieces, seconds):
        """Puts an event into the outbox at once; False when it has no room."""
        return self._add(pieces, self.settings.schedule(name)[0], seconds)

    def complain(self, key, reason):
        """Tells of a setting that does not do: in the log, and as a ConfigurationError event."""
        log.warning("%s: %s" % (key, reason))
        self.tell("ConfigurationError", "key,reason", [key, reason])

    def tell(self, name, columns, row, event_type="Diagnostic"):
        """Puts an event of one row that no collector made into the outbox, as High.

        False when it has no room.
        """
        with Cold():
            from . import events

            pieces = [events.head(name, event_type, "Triggered")]
            pieces += events.payload(columns, [row], self.objects)
        return self._add(pieces, _HIGH, 0) or self._lose(name)

    def _add(self, pieces, priority, seconds):
        for at, piece in enumerate(pieces):  # in its place: there may be no heap for both
            if isinstance(piece, str):
                pieces[at] = piece.encode()
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

    def after_jobs(self):
        gc.collect()
        self.heap_low_water = min(self.heap_low_water, gc.mem_free())
        self.sender.wake()

    def on_connection(self, connected, _):
        if connected:
            log.info("connected")
            self.sender.wake()

    def beat(self, _):
        """Feeds the watchdog, and logs the client's errors."""
        if self.watchdog:
            self.watchdog()
        error = str(self.client.last_error or "")
        if error != self._told:
            self._told = error
            if error:
                log.warning("hub: " + error)
