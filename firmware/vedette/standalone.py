"""The agent on its own: config.json says which hub and network, app.py, if there is one, runs too.

What is done once is in modules of their own, which leave the heap again.
"""

import asyncio
import sys
import time

from micropython import const
from nettap import sockets

from . import VERSION, cold, log, start
from .store import FOLDER, Store

_HELD_S = const(60)  # a start that lives so long did not fail
_LOOK_S = const(5)  # between looks at the network
_RETRY_S = const(60)  # until the clock is set, where that raised
_MISSING = const("no module named 'app'")
_INTERRUPTED = const(0)
_NO_AGENT = const(1)
_CRASHED = const(2)

_address = None  # the interface's, once it is up


def _begin(store):
    """Whether the agent may run. When not, the tap goes: the application is on its own."""
    if cold.call("starts", "begin", store):
        return True
    from . import tap

    tap.remove()
    log.error("safe mode: the last starts failed; the agent does not run until the next")
    return False


def _start(config, store):
    """Returns the agent, None where it cannot run. Imports it here: in safe mode none of it is."""
    try:
        from iothub import HubError

        config = dict(cold.call("ports", "load").alone(), **config)
        try:
            agent = start(**config)
        except (HubError, ValueError) as error:
            log.error("the agent does not run: %s" % error)
            return None
    except Exception as error:
        log.failed("the agent", error)
        _keep(error, None, store)
        return None
    log.info("version %s runs" % VERSION)  # `vedette deploy` waits for this
    cold.call("starts", "report", agent, True)
    return agent


async def _hold(store):
    while True:
        await asyncio.sleep(_HELD_S)
        try:
            return cold.call("starts", "held", store)
        except MemoryError:
            pass  # there may be heap for it later


def _local_address(remote):
    """This end of a connection to `remote`, for the tap: no board tells it of a socket."""
    if remote and len(remote) == 4:
        return remote if remote[0] == 127 else _address
    return None


async def _online(network, servers):
    """Keeps the network up and the clock right; runs for ever."""
    global _address
    nic = None
    due = time.ticks_ms()
    while True:
        try:
            if network and not (nic and nic.isconnected()):
                nic = await cold.call("bringup", "connect", network, nic)
                if nic and nic.isconnected():
                    _address = bytes([int(part) for part in nic.ifconfig()[0].split(".")])
                    sockets.local_address = _local_address
            elif time.ticks_diff(time.ticks_ms(), due) >= 0:
                due = time.ticks_add(time.ticks_ms(), 1000 * _RETRY_S)
                seconds = await cold.call("sntp", "synchronise", servers)
                due = time.ticks_add(time.ticks_ms(), 1000 * seconds)
        except Exception as error:  # such as no heap for now
            log.failed("network", error)
        await asyncio.sleep(_LOOK_S)


async def _run_app(agent, store):
    """Runs app.py's main(), where there is an app.py."""
    more = "; the agent goes on" if agent else ""
    try:
        import app

        await app.main()
    except Exception as error:
        if isinstance(error, ImportError) and str(error) == _MISSING:
            return
        sys.print_exception(error, sys.stderr)
        log.error("app.py ended with an error" + more)
        _keep(error, agent, store)
    else:
        log.info("app.py ended" + more)


def _keep(error, agent, store):
    """Keeps an error as evidence, and the application's is reported where the agent runs."""
    try:
        cold.call("starts", "note", store, error)
        if agent:
            agent.counters["app_errors"] += 1
            cold.call("starts", "report", agent)
    except Exception as another:  # no heap, say, which may be what the first one was about
        log.failed("evidence", another)


async def _main(config, store):
    agent = None
    network = config.pop("network", None)
    servers = config.pop("time_servers", None)
    if network and not servers:
        servers = ("pool.ntp.org", "time.cloudflare.com")
    if servers:
        asyncio.create_task(_online(network, servers))
    safe = False
    if config:
        asyncio.create_task(_hold(store))
        safe = not _begin(store)
        if not safe:
            agent = _start(config, store)
        config.clear()  # it holds secrets

    def failed(loop, context):
        loop.set_exception_handler(None)  # one for a start: flash and quota are not for each
        loop.default_exception_handler(loop, context)
        _keep(context["exception"], agent, store)

    asyncio.get_event_loop().set_exception_handler(failed)
    await _run_app(agent, store)
    while agent or safe:  # main() may have left tasks that run
        await asyncio.sleep(3600)


def run():
    """Runs agent and application until interrupted, or until neither has anything to run."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # app.py stands beside config.json
    config = cold.call("config_file", "load")
    store = Store(config.get("state", FOLDER))
    restart = cold.call("ports", "load").restart()
    ended = _NO_AGENT
    try:
        asyncio.run(_main(config, store))
    except KeyboardInterrupt:
        ended = _INTERRUPTED
    except Exception as error:  # the event loop's own: nothing runs any more
        log.failed("the event loop", error)
        _keep(error, None, store)
        if restart:
            restart()
        ended = _CRASHED
    if ended != _CRASHED:
        cold.call("starts", "held", store)
    cold.call("ports", "load").leave(ended)
