"""Tells of each process that comes to be: by the kernel's events, else by polling /proc.

A process that goes on with its parent's program is a fork. One that takes up a program is an exec,
and not a fork before that. `seen(when, pid, parent, command line, user id, kind)` is called once
for each, `when` in seconds of uptime; what was gone before it could be read is "" or None.
"""

import asyncio

from iothub import clock
from micropython import const
from nettap import netlink

from .. import log
from . import proc, process_events

_PROBE_MAX = const(32)  # the latest ids, tried one by one: they may not be seen in /proc yet
_SLICE = const(16)  # processes read before the loop has its turn
_FORKS_MAX = const(256)
_UNDECIDED_S = const(2)  # that a fork has to take up a program


def start(seen, polling_ms):
    """Returns a watch: its task is `run()`, for ever; `settle()` tells of what is not decided."""
    try:
        return _Events(seen, process_events.listen())
    except OSError:  # not allowed, or a kernel or a container without them
        log.info("may not see the kernel's process events: looks every %d ms" % polling_ms)
        return _Polling(seen, polling_ms)


class _Watch:
    def __init__(self, seen):
        self.lost = 0  # times that the kernel had to drop events
        self._seen = seen
        self._forks = {}  # those that may still take up a program: what to tell, by their ids

    def close(self):
        """Ends it, once its task is cancelled."""

    def settle(self):
        """Tells of the forks that have not taken up a program yet."""
        forks, self._forks = self._forks, {}
        for fork in forks.values():
            self._seen(*fork)

    def _fork(self, pid, parent, line):
        if len(self._forks) >= _FORKS_MAX:
            self.settle()
        self._forks[pid] = (clock.uptime(), pid, parent, line, proc.user(pid), "fork")


class _Events(_Watch):
    def __init__(self, seen, link):
        super().__init__(seen)
        self._link = link

    async def run(self):
        while True:
            await netlink.readable(self._link)
            try:
                for what, ids in process_events.read(self._link):
                    self._take(what, ids)
            except OSError:
                self.lost += 1

    def close(self):
        self._link.close()

    def _take(self, what, ids):
        if what == process_events.FORK:
            parent, pid = ids[1], ids[3]
            if ids[2] == pid and parent != proc.KTHREADD:  # neither a thread nor the kernel's own
                self._fork(pid, parent, proc.command_line(pid) or proc.command_line(parent))
        elif what == process_events.EXEC:
            self._exec(ids[1], self._forks.pop(ids[1], None))

    def _exec(self, pid, fork):
        found = proc.process(pid)
        parent = fork[2] if fork else found[0] if found else None
        line = proc.command_line(pid, found and found[1])
        self._seen(clock.uptime(), pid, parent, line, proc.user(pid), "exec")


class _Polling(_Watch):
    def __init__(self, seen, polling_ms):
        super().__init__(seen)
        self._polling_ms = polling_ms
        self._last = proc.last_pid()
        self._ticks = proc.ticks()
        self._again = []  # ids that nothing could be seen of yet: tried once more

    async def run(self):
        while True:
            await asyncio.sleep_ms(self._polling_ms)
            last = proc.last_pid()
            if last != self._last or self._forks or self._again:
                await self._look(last)

    async def _look(self, last):
        forks, self._forks = self._forks, {}
        for fork in forks.values():
            self._decide(fork)
        again, self._again = self._again, []
        first, self._last = self._last, last
        since, self._ticks = self._ticks, proc.ticks()
        anew = last < first  # the ids began anew: those up to `last` may be old
        recent = max(0 if anew else first, last - _PROBE_MAX)
        older = []
        if anew:
            older = [pid for pid in proc.pids() if pid > first or pid <= recent]
        elif recent > first:
            older = [pid for pid in proc.pids() if first < pid <= recent]
        for turn, pid in enumerate(older + list(range(recent + 1, last + 1)) + again):
            if turn % _SLICE == _SLICE - 1:
                await asyncio.sleep_ms(0)
            found = proc.process(pid)
            if found and not (anew and pid <= last and found[2] < since):
                line = proc.command_line(pid)
                if line or found[3] or pid in again:
                    self._appeared(pid, found, line or "[%s]" % found[1])
                else:  # it is taking up a program just now
                    self._again.append(pid)
            elif not found and recent < pid <= last:
                self._again.append(pid)

    def _appeared(self, pid, found, line):
        if line == proc.command_line(found[0]):
            self._fork(pid, found[0], line)
        else:
            self._seen(clock.uptime(), pid, found[0], line, proc.user(pid), "exec")

    def _decide(self, fork):
        line = proc.command_line(fork[1])
        if line and line != fork[3]:
            self._seen(*(fork[:3] + (line, proc.user(fork[1]), "exec")))
        elif (line or self._goes_on(fork[1])) and clock.uptime() - fork[0] < _UNDECIDED_S:
            self._forks[fork[1]] = fork
        else:
            self._seen(*fork)

    def _goes_on(self, pid):
        # It has no command line while it takes up a program.
        found = proc.process(pid)
        return found and not found[3]
