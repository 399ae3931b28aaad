"""What the agent loads for a task leaves the heap after it: nothing that lives on keeps it."""

import asyncio
import gc
import os
import sys

import vedette
from harness import SkipTest
from hub_client import Client
from vedette import log
from vedette.cold import Cold

log.level = 0
_STAY = ("vedette.collectors.network_activity", "vedette.store")  # the agent has objects of theirs
_marks = {}  # by the inode of a file that a module's mark holds open: the module's name
_plain = Cold.__exit__


def _leave(self, *error):
    for name, module in sys.modules.items():
        if name.startswith("vedette.") and name not in self._kept and not hasattr(module, "mark"):
            path = "mark-%d" % len(_marks)
            module.mark = open(path, "w")  # closed by the garbage collector, with its module
            _marks[os.stat(path)[1]] = name
    _plain(self, *error)


def _alive():
    """The names of the modules that were let go of, but are still in the heap."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            inode = os.stat("/proc/self/fd/" + number)[1]
        except OSError:  # the folder's own
            continue
        if _marks.get(inode, _STAY[0]) not in _STAY:
            found.append(_marks[inode])
    return found


async def _work(client, agent):
    client.push({"microAgent": {"Message_MaxSize": 8192, "Alerts_FlowsLimit": 1}}, 1, True)
    await client.until(1)
    agent.complain("A", "reason")
    for method in ("getStatus", "collectNow", "getBaseline", "selfTest"):
        assert (await client.methods[method](None))[0] == 200
    await agent.check_alerts("Alerts")
    await agent.sender.flush()


async def _deep(calls):
    """Writes over what earlier calls left on the C stack, which the garbage collector reads."""
    if calls:
        await _deep(calls - 1)


async def _left():
    """What is still in the heap when an agent has worked, and what ran beside it is done."""
    _marks.clear()
    client = Client()
    agent = vedette.start(client=client, state="left")
    await asyncio.create_task(_work(client, agent))
    for _ in range(50):
        await asyncio.sleep_ms(20)
        await asyncio.create_task(_deep(12))
        gc.collect()
        alive = _alive()
        if not alive:
            break
    await agent.stop()
    return alive


async def test_nothing_of_a_task_stays():
    if sys.platform != "linux":
        raise SkipTest("what is open is looked up in /proc")
    Cold.__exit__ = _leave
    try:
        # The garbage collector takes any word that could be an address for one, so that something
        # may stay by chance; what the code keeps stays each time.
        for _ in range(3):
            alive = await _left()
            if not alive:
                break
    finally:
        Cold.__exit__ = _plain
    used = set(_marks.values())
    for name in ("lifecycle", "desired", "sending", "methods", "alerts", "baseline", "ports.unix"):
        assert "vedette." + name in used, name
    assert not alive, alive
