"""What of the device's configuration is not as a benchmark wants it: a row for each such check."""

from micropython import const

from .. import baseline, events, ports
from . import Base

_ROWS_SIZE = const(1024)  # bytes of text in the rows of one event, about


class Collector(Base):
    name = event = "Baseline"
    event_type = "Security"

    async def collect(self):
        """Makes an event of each `_ROWS_SIZE` of rows; each counts the checks it is about."""
        seconds = self.interval()
        rows = []
        size = run = passed = 0

        async def take(result):
            nonlocal rows, size, run, passed
            if size >= _ROWS_SIZE:
                await self._emit(rows, run, passed, seconds)
                rows = []
                size = run = passed = 0
            run += 1
            if result[1] == "Pass":
                passed += 1
            else:
                rows.append(list(result))
                size += sum([len(text or "") for text in result])

        await baseline.each(self.agent, ports.facts(self.agent), take)
        await self._emit(rows, run, passed, seconds)

    async def _emit(self, rows, run, passed, seconds):
        pieces = [self.head(), '"ChecksRun":%d,"ChecksPassed":%d,' % (run, passed)]
        pieces += events.payload(baseline.COLUMNS, rows, self.agent.objects)
        await self.agent.deliver(self.name, pieces, seconds)
