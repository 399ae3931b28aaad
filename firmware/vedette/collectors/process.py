"""The processes that came to be, aggregated by command line and user: one row each. Linux only."""

import asyncio
import json

from iothub import clock
from micropython import const

from .. import events, log
from ..ports import process_watch
from ..ports.keep import keep
from . import Base

_COLUMNS = const("timestamp,process_id,parent_process_id,commandline,user_id,type,hit_count")
_HITS = const(6)
_EVENT_MAX = const(4096)  # bytes of rows, about, that one event holds
_ROW = const(96)  # bytes of a row besides its command line, about;
_OBJECT = const(192)  # where each value has its name


class Collector(Base):
    name = "Process"
    event = "ProcessCreate"
    event_type = "Security"
    category = "Aggregated"

    def __init__(self, agent):
        super().__init__(agent)
        if not agent.system:
            raise ImportError("processes are for an agent that watches the whole system")
        self._rows = {}  # by command line and user id
        self._order = []  # its keys, oldest first
        self._evicted = 0
        self._watch = None
        self._task = None

    def start(self):
        self._size = self.agent.settings["Process_CacheSize"]
        polling_ms = self.agent.settings["Process_PollingInterval"] // 1000
        self._watch = process_watch.start(self._seen, polling_ms)
        self._task = asyncio.create_task(keep(self.agent, self.name, self._watch.run))

    def stop(self):
        self._task.cancel()
        self._watch.close()

    def _seen(self, when, pid, parent, line, user, kind):
        key = (line, user)
        if key in self._rows:
            self._rows[key][_HITS] += 1
            return
        if len(self._order) == self._size:
            del self._rows[self._order.pop(0)]
            self._evicted += 1
        self._order.append(key)
        self._rows[key] = [when, pid, parent, line, user, kind, 1]

    async def collect(self):
        self.finish("processes stay in memory")
        if self._watch.lost:
            log.warning("the kernel dropped process events %d times" % self._watch.lost)
            self._watch.lost = 0
        self.gave_way(self._evicted, "processes")
        self._evicted = 0

    def hand_over(self):
        self._watch.settle()
        agent = self.agent
        seconds = clock.uptime() - agent.since[self.name]
        while self._order:
            count, pieces = self._event()
            if not agent.add(self.name, pieces, seconds):
                return False
            for key in self._order[:count]:
                del self._rows[key]
            del self._order[:count]
        self.interval()
        return True

    def _event(self):
        """Returns (number of rows, text in pieces) of an event of the oldest rows."""
        boot = clock.unix() - clock.uptime()
        rows = []
        size = 0
        for key in self._order:
            size += len(json.dumps(key[0]).encode()) + (_OBJECT if self.agent.objects else _ROW)
            if rows and size > _EVENT_MAX:
                break
            row = self._rows[key]
            rows.append([clock.utc(boot + row[0])] + row[1:])
        return len(rows), [self.head()] + events.payload(_COLUMNS, rows, self.agent.objects)
