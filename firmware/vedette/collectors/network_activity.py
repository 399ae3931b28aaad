"""The connections that the tap saw, aggregated in the flow table: one row a flow.

An agent that watches the whole system has those of other programs too.
"""

import os

from flowtable import DROP_NEW, DROP_OLDEST
from iothub import clock
from nettap import sockets

from .. import tap
from ..outbox import FLOWS, OBJECTS
from . import Base


class Collector(Base):
    name = "NetworkActivity"
    event = "ConnectionCreate"
    event_type = "Security"
    category = "Aggregated"

    def __init__(self, agent):
        super().__init__(agent)
        tap.install()
        self.table = tap.table
        self._evicted = 0  # that was told of; less those, while it is disabled
        self._others = None

    def start(self):
        settings = self.agent.settings
        oldest = settings["NetworkActivity_OverflowPolicy"] == "DropOldest"
        self.table.clear()  # of what was seen while it was disabled
        self._evicted += self.table.evicted
        self.table.configure(
            settings["NetworkActivity_CacheSize"], DROP_OLDEST if oldest else DROP_NEW
        )
        sockets.include_own = settings["NetworkActivity_AgentTraffic"] == "Include"
        sockets.include_icmp = not self.agent.system  # of which all is seen by other means
        self.interval()
        if self.agent.system:
            from ..ports.traffic import Traffic

            self._others = Traffic(self.agent, self.table)
        self.agent.scheduler.every_beat(self._tick)

    def stop(self):
        self.agent.scheduler.drop_hook(self._tick)
        self._evicted -= self.table.evicted
        if self._others:
            self._others.stop()
            self._others = None

    def _tick(self, now):
        self.table.tick(now - self.agent.since[self.name])

    async def collect(self):
        self.finish("flows stay in the table")
        evicted = self.table.evicted - self._evicted
        self._evicted += evicted
        self.gave_way(evicted, "flows")

    def hand_over(self, priority=None):
        """Moves the flows into the outbox, `priority` (0 High) instead of the twin's, if given."""
        agent, table = self.agent, self.table
        count = table.live
        if not count:
            self.interval()
            return True
        from .. import flows

        text = self.head()
        size = agent.settings["Message_MaxSize"] - flows.FRAME_MAX
        if self._others:
            share = min(size, agent.outbox.room) // 4
            owners = self._others.owners.rows(share, agent.objects)
            text += '"Processes":%s,' % owners
            size -= len(owners)
        text += '"IsEmpty":false,"Payload":'
        start = len(text)
        row_max = flows.OBJECTS_ROW_MAX if agent.objects else flows.COLUMNS_ROW_MAX
        rows = min(size // row_max, count)
        if priority is None:
            priority = agent.settings.schedule(self.name)[0]
        now = clock.uptime()
        view = agent.outbox.reserve(
            min(start + flows.room(table), agent.outbox.room),
            FLOWS,
            priority,
            OBJECTS if agent.objects else 0,
            0,
            0,
            rows,
            start,
            now,
            now - agent.since[self.name],
            os.urandom(16),
        )
        if view is None:
            return False
        view[:start] = text.encode()
        size = flows.take(table, view[start:], sockets.host_name)
        # What was in the table is nowhere else: nothing from here on takes heap.
        parts = (count - table.live + rows - 1) // rows
        agent.outbox.commit(start + size, parts)
        agent.counters["events_collected"] += parts
        if table.live:
            return self.hand_over(priority)
        agent.since[self.name] = now
        if self._others:
            self._others.owners.forget()
        return True
