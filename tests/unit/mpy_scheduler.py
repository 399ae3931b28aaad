"""The scheduler in simulated time: grid, priorities, lateness, errors, changes."""

import asyncio
import time

from vedette import log
from vedette.scheduler import Scheduler

_DAY = 86400
_WRAP = time.ticks_add(0, -1) + 1  # the period of ticks_ms


class Stop(BaseException):
    """Ends a run of simulated time."""


class Clock:
    """Seconds of uptime that only sleeping moves, and ticks that wrap as the port's do."""

    def __init__(self, seconds=0):
        self.ms = 1000 * seconds
        self.end = None
        self.busy = False  # whether a job takes its time

    def uptime(self):
        return self.ms // 1000

    def ticks_ms(self):
        return self.ms % _WRAP

    async def sleep_ms(self, ms):
        while self.scheduler._round and not self.busy:
            await asyncio.sleep_ms(0)
        self.ms += ms
        if self.ms >= self.end:
            raise Stop()

    async def run(self, scheduler, seconds, after=None):
        self.scheduler = scheduler
        self.end = self.ms + 1000 * seconds + 1  # the beat at the end included
        try:
            await scheduler.run(after)
        except Stop:
            pass


def _make(start=0):
    clock = Clock(start)
    return clock, Scheduler(clock.uptime, clock.sleep_ms, clock.ticks_ms)


def _job(clock, times, name):
    async def run(_):
        times.append((clock.uptime(), name))

    return run


async def test_a_job_runs_on_its_grid_for_days_without_drift():
    clock, scheduler = _make(12345)
    times = []
    scheduler.add("a", _job(clock, times, "a"), 1800, 0, _DAY)
    await clock.run(scheduler, 3 * _DAY)
    assert len(times) == 3 * 48, len(times)
    steps = {after[0] - before[0] for before, after in zip(times, times[1:])}
    assert steps == {1800}, steps
    assert 12345 < times[0][0] <= 12345 + 1800


async def test_the_first_run_comes_after_a_random_part_of_the_interval():
    firsts = set()
    for _ in range(40):
        clock, scheduler = _make()
        times = []
        scheduler.add("a", _job(clock, times, "a"), 1000, 0, 1000)
        await clock.run(scheduler, 1000)
        firsts.add(times[0][0])
    assert len(firsts) > 20 and min(firsts) < 300 and max(firsts) > 700, firsts


async def test_jobs_meet_where_their_periods_divide():
    clock, scheduler = _make()
    times = []
    for name, period in (("high", 60), ("medium", 120), ("low", 600)):
        scheduler.add(name, _job(clock, times, name), period, 0, 600)
    await clock.run(scheduler, 1800)
    at = {}
    for when, name in times:
        at.setdefault(name, set()).add(when)
    assert at["low"] <= at["medium"] <= at["high"] and len(at["low"]) == 3


async def test_priority_decides_who_goes_first():
    clock, scheduler = _make()
    times = []
    for name, priority in (("c", 2), ("a", 0), ("b", 1)):
        scheduler.add(name, _job(clock, times, name), 10, priority, 10)
    await clock.run(scheduler, 30)
    assert [name for _, name in times] == ["a", "b", "c"] * 3, times


async def test_a_new_period_takes_effect_at_once():
    clock, scheduler = _make()
    times = []
    scheduler.add("a", _job(clock, times, "a"), _DAY, 0, _DAY)
    await clock.run(scheduler, 100)
    del times[:]
    scheduler.add("a", _job(clock, times, "a"), 5, 0, 5)
    await clock.run(scheduler, 60)
    assert times[0][0] <= 106 and len(times) == 12, times


async def test_a_removed_job_does_not_run_again():
    clock, scheduler = _make()
    times = []
    scheduler.add("a", _job(clock, times, "a"), 5, 0, 5)
    await clock.run(scheduler, 10)
    scheduler.remove("a")
    seen = len(times)
    await clock.run(scheduler, 20)
    assert seen == len(times) == 2


async def test_a_job_that_raises_is_counted_and_the_others_go_on():
    clock, scheduler = _make()
    times = []

    async def bad(_):
        raise ValueError("on purpose")

    log.level = 0
    scheduler.add("bad", bad, 10, 0, 10)
    scheduler.add("good", _job(clock, times, "good"), 10, 1, 10)
    await clock.run(scheduler, 50)
    log.level = log.INFO
    assert scheduler.errors == 5 and len(times) == 5


async def test_a_late_job_runs_once_and_returns_to_its_grid():
    clock, scheduler = _make()
    times = []

    async def slow(_):
        times.append(clock.uptime())
        if len(times) == 2:
            clock.ms += 35000

    scheduler.add("slow", slow, 10, 0, 10)
    await clock.run(scheduler, 100)
    first = times[0]
    assert times[1] == first + 10
    assert 45 <= times[2] - first <= 46
    assert times[3] == first + 50, times


async def test_lateness_is_measured_in_milliseconds():
    clock, scheduler = _make()
    await clock.run(scheduler, 10)
    assert scheduler.late_max_ms == 0
    asleep = clock.sleep_ms

    async def late(ms):
        await asleep(ms + (340 if clock.ms > 15000 else 7))

    scheduler._sleep_ms = late
    await clock.run(scheduler, 10)
    assert scheduler.late_max_ms == 340, scheduler.late_max_ms


async def test_ticks_that_wrap_make_no_difference():
    clock, scheduler = _make(_WRAP // 1000 - 50)
    times = []
    scheduler.add("a", _job(clock, times, "a"), 10, 0, 10)
    await clock.run(scheduler, 200)
    assert len(times) == 20 and scheduler.late_max_ms == 0


async def test_hooks_are_fed_every_second_and_after_follows_jobs():
    clock, scheduler = _make()
    beats = []
    rounds = []
    scheduler.every_beat(beats.append)
    scheduler.add("a", _job(clock, [], "a"), 10, 0, 10)
    await clock.run(scheduler, 60, lambda: rounds.append(1))
    assert beats == list(range(61)) and len(rounds) == 6
    scheduler.drop_hook(beats.append)
    await clock.run(scheduler, 5)
    assert len(beats) == 61


async def test_beats_do_not_wait_for_a_job_that_takes_long():
    clock, scheduler = _make()
    beats = []
    runs = []
    scheduler.every_beat(beats.append)

    async def long(_):
        clock.busy = True
        runs.append(clock.uptime())
        while len(beats) % 35:
            await asyncio.sleep_ms(0)
        clock.busy = False

    scheduler.add("long", long, 10, 0, 10)
    asleep = clock.sleep_ms

    async def sleep_ms(ms):
        await asyncio.sleep_ms(0)
        await asleep(ms)

    scheduler._sleep_ms = sleep_ms
    await clock.run(scheduler, 100)
    assert beats == list(range(101)) and scheduler.late_max_ms == 0
    assert 2 <= len(runs) <= 4, runs  # it runs once at a time, and once for each time it missed


async def test_a_hook_that_raises_is_counted_and_the_beats_go_on():
    clock, scheduler = _make()
    beats = []

    def bad(_):
        raise MemoryError("on purpose")

    log.level = 0
    scheduler.every_beat(bad)
    scheduler.every_beat(beats.append)
    await clock.run(scheduler, 5)
    log.level = log.INFO
    assert scheduler.errors == 6 and len(beats) == 6
