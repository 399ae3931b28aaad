"""The agent's direct methods. Imported when one is called."""

import asyncio
import sys

from iothub import clock
from micropython import const

from . import VERSION, log
from .cold import Cold, call
from .settings import COLLECTORS

_WAIT_S = const(1)


class Refused(ValueError):
    """A payload that cannot be taken; the text says why."""


async def answer(agent, name, payload):
    """Returns (status, answer) of a call: 400 with the reason for a payload that is no good."""
    try:
        if name == "collectNow":
            return 200, await _collect_now(agent, payload)
        if payload:
            raise Refused("%s takes no payload" % name)
    except Refused as reason:
        return 400, {"error": str(reason)}
    if name == "getBaseline":
        return 200, await _baseline(agent)
    if name == "getStatus":
        return 200, _status(agent)
    if name == "restart":
        asyncio.create_task(_restart(agent))
    else:
        title, description = "A test, on request", "Alerts of this device arrive."
        call("alerts", "tell", agent, "SelfTest", title, description, "Low")
    return 200, {}


async def _collect_now(agent, payload):
    """{"collector": name}, or all that are not disabled. Returns those that ran."""
    if payload is None or payload == {}:
        names = COLLECTORS
    elif not isinstance(payload, dict) or list(payload) != ["collector"]:
        raise Refused('must be {"collector": name}, or nothing for all')
    else:
        names = (payload["collector"],)
        if names[0] not in COLLECTORS:
            raise Refused("collector must be one of " + ", ".join(COLLECTORS))
        if agent.settings[names[0] + "_Disabled"]:
            raise Refused(names[0] + " is disabled in the twin")
    collected = []
    for name in names:
        try:
            if not agent.settings[name + "_Disabled"] and await agent.collect(name):
                collected.append(name)
        except Exception as error:  # one that fails does not stop the others, as in the scheduler
            agent.scheduler.errors += 1
            log.failed(name, error)
    agent.sender.wake()
    return {"collected": collected}


async def _baseline(agent):
    """All results, passes too: [check id, result, what was found] each."""
    results = []
    with Cold():
        from . import baseline, ports

        async def take(result):
            results.append(result[:3])

        await baseline.each(agent, ports.facts(agent), take)
    return {"columns": ["check_id", "result", "error"], "rows": results}


def _status(agent):
    with Cold():
        from .collectors.statistics import COLUMNS, Collector
        from .validation import keys

        return {
            "agent_version": VERSION,
            "micropython": sys.version,
            "uptime": clock.uptime(),
            "connected": agent.client.connected,
            "waiting": agent.outbox.count,
            "applied_version": agent.configuration.applied,
            "configuration": {key: agent.settings[key] for key in keys()},
            "statistics": dict(zip(COLUMNS.split(","), Collector(agent).values())),
        }


async def _restart(agent):
    """The agent begins anew, and takes its twin again; board and application go on."""
    await asyncio.sleep(_WAIT_S)  # the answer is on its way meanwhile
    with Cold():
        from .lifecycle import handed_over, reconnect, restart

        await handed_over(agent)
        if agent.tasks:  # it was not stopped meanwhile
            restart(agent, COLLECTORS)
            await reconnect(agent)
