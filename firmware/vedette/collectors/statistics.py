"""What the agent knows of itself. Counters are since the start, but for those of the day."""

from iothub import clock
from micropython import const
from nettap import sockets

from .. import tap
from . import Base

_DAY_S = const(86400)

COLUMNS = (
    "messages_sent,messages_acknowledged,messages_retried,events_collected,events_sent,"
    "events_expired,events_dropped,events_refused,collections_deferred,flows_refused,"
    "hits_refused,flows_evicted,table_high_water,outbox_high_water,reconnects,"
    "heap_low_water,scheduler_late_max_ms,job_errors,tap_errors,settings_refused,"
    "files_corrupt,journal_errors,app_errors,alerts_held_back,day_messages,day_units,"
    "day_bytes,day_quota,quota_waits"
)


class Collector(Base):
    name = event = "Statistics"
    event_type = "Diagnostic"

    async def collect(self):
        await self.emit(COLUMNS, [self.values()])

    def values(self):
        """Returns a list of the integers that `COLUMNS` names."""
        agent = self.agent
        sender, outbox, table, counters = agent.sender, agent.outbox, tap.table, agent.counters
        day = sender.day
        if day[0] != clock.unix() // _DAY_S:  # nothing was sent today yet
            day = (0, 0, 0, 0)
        return [
            sender.sent,
            sender.acknowledged,
            sender.retried,
            counters["events_collected"],
            sender.events_sent,
            outbox.expired,
            outbox.dropped,
            counters["events_refused"],
            counters["collections_deferred"],
            table.refused_flows,
            table.refused_hits,
            table.evicted,
            table.high_water,
            outbox.high_water,
            max(agent.client.stats["connects"] - 1, 0),
            agent.heap_low_water,
            agent.scheduler.late_max_ms,
            agent.scheduler.errors + sender.errors,
            sockets.errors,
            counters["settings_refused"],
            agent.store.corrupt,
            agent.journal.errors if agent.journal else 0,
            counters["app_errors"],
            counters["alerts_held_back"],
            day[1],
            day[2],
            day[3],
            agent.settings["Message_DailyQuota"],
            sender.quota_waits,
        ]
