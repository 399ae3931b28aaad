"""Collectors: one module each, found by its name; adding one touches no other file.

`NetworkActivity` lives in `network_activity.py` as the class `Collector`, and so on. A name of the
twin's contract without a module, or whose module this platform lacks, is not collected.
"""

from iothub import clock

from .. import log

# These aggregate between two collections, and stay loaded. The others are made when they are due.
RESIDENT = ("NetworkActivity", "Process")


class Base:
    """What every collector is. `name` is the collector's in the twin's keys.

    `event` is the Name of its events. `agent` gives settings, scheduler, outbox, sender, client,
    port and store. One that is RESIDENT has three methods more: `start()`, with the settings in
    force; `stop()`, before they change and when the agent stops; and before that `hand_over()`,
    which puts what was aggregated into the outbox, or returns False when it has no room.
    """

    name = ""
    event = ""
    event_type = "Operational"
    category = "Periodic"

    def __init__(self, agent):
        self.agent = agent

    async def collect(self):
        """The interval is over: calls `emit`."""

    def interval(self):
        """Returns the seconds since the last call: the time that an event covers."""
        now = clock.uptime()
        since = self.agent.since
        seconds = now - since[self.name]
        since[self.name] = now
        return seconds

    def finish(self, waiting):
        """Hands over at the end of an interval; counts it when that had to wait, and says so."""
        if not self.hand_over():
            self.agent.counters["collections_deferred"] += 1
            log.warning("no room in the outbox: the " + waiting)

    def gave_way(self, count, what):
        """Complains that so many of a full cache gave way to newer ones, if any did."""
        if count:
            text = "%d %s gave way to newer ones: raise it, or shorten the interval"
            self.agent.complain(self.name + "_CacheSize", text % (count, what))

    def head(self):
        from .. import events

        return events.head(self.event, self.event_type, self.category)

    async def emit(self, columns, rows):
        """Makes one event of `rows`, lists of values for `columns`: "name,name"."""
        from .. import events

        pieces = [self.head()] + events.payload(columns, rows, self.agent.objects)
        await self.agent.deliver(self.name, pieces, self.interval())


def load(name, agent):
    """Returns the collector of that name, or None where there is none."""
    module = "".join("_" + c.lower() if c.isupper() else c for c in name)[1:]
    try:
        package = __import__("vedette.collectors." + module)
        return getattr(package.collectors, module).Collector(agent)
    except ImportError:
        return None
