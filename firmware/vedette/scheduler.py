"""Cooperative jobs on one beat of a second: period, priority, first-run phase, lateness.

Due times are whole seconds of a monotonic clock that does not wrap, on a grid that never drifts: a
job that could not run in time runs once, late, and its next turn is where it always was.
"""

import asyncio
import random
import time

from micropython import const

from . import log

_BEAT_MS = const(1000)


class Job:
    """`run` is awaited with the name; of jobs due at the same time, `priority` 0 goes first."""

    def __init__(self, name, run, period, priority, due):
        self.name = name
        self.run = run
        self.period = period
        self.priority = priority
        self.due = due


class Scheduler:
    """`uptime` gives seconds; `sleep_ms` and `ticks_ms` are asyncio's and time's, or a test's.

    Every job is due at `start + u * longest` plus a multiple of its own period, with one random u
    a start: devices that start together do not send together, and a device's jobs whose periods
    divide each other meet, so that their events share a message.
    """

    def __init__(self, uptime, sleep_ms=asyncio.sleep_ms, ticks_ms=time.ticks_ms):
        self._uptime = uptime
        self._sleep_ms = sleep_ms
        self._ticks_ms = ticks_ms
        self._origin = uptime()
        self._fraction = random.getrandbits(16)
        self._jobs = []
        self._hooks = []
        self._round = None  # the task that runs what is due
        self.errors = 0
        self.late_max_ms = 0

    def every_beat(self, hook):
        """Calls `hook(uptime)` about once a second, whatever the jobs do."""
        self._hooks.append(hook)

    def drop_hook(self, hook):
        self._hooks.remove(hook)

    def add(self, name, run, period, priority, longest):
        """Adds the job, or gives the one of that name a new period, from now on.

        `longest` is the period that all jobs' periods divide: the grid on which they meet.
        """
        self.remove(name)
        now = self._uptime()
        phase = self._origin + (longest * self._fraction >> 16)
        job = Job(name, run, period, priority, now + 1 + (phase - now - 1) % period)
        self._jobs.append(job)
        self._jobs.sort(key=lambda job: job.priority)

    def remove(self, name):
        self._jobs = [job for job in self._jobs if job.name != name]

    async def run(self, after=None):
        """Runs for ever; calls `after()` when a round of jobs is over. Beats wait for no job."""
        due = self._ticks_ms()
        try:
            while True:
                late = time.ticks_diff(self._ticks_ms(), due)
                self.late_max_ms = max(self.late_max_ms, late)
                now = self._uptime()
                for hook in self._hooks:
                    self.attempt("a beat", hook, now)
                if not self._round and any([job.due <= now for job in self._jobs]):
                    self._round = asyncio.create_task(self._run_due(now, after))
                wait = time.ticks_diff(time.ticks_add(due, _BEAT_MS), self._ticks_ms())
                wait = max(wait, 0)
                due = time.ticks_add(self._ticks_ms(), wait)
                await self._sleep_ms(wait)
        except asyncio.CancelledError:
            if self._round:
                self._round.cancel()
            raise

    async def _run_due(self, now, after):
        try:
            for job in self._jobs:  # the list is replaced, never changed, by add and remove
                if job.due <= now:
                    job.due += (now - job.due) // job.period * job.period + job.period
                    try:
                        await job.run(job.name)
                    except Exception as error:
                        self.errors += 1
                        log.failed(job.name, error)
            if after:
                self.attempt("a beat", after)
        finally:
            self._round = None

    def attempt(self, name, function, *args):
        """Returns what the function does; False when it raised, which is counted and logged."""
        try:
            return function(*args)
        except Exception as error:
            self.errors += 1
            log.failed(name, error)
            return False
