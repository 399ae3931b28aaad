"""How the agent and its parts begin and end: seldom of use, so it does not stay in the heap."""

import asyncio
import os

from iothub import Credentials, HubClient, clock
from micropython import const
from nettap import sockets

from . import collectors, events, log
from .agent import Agent
from .settings import COLLECTORS
from .store import FOLDER, Store

_ALERTS_S = const(30)
_WAIT_S = const(1)
_METHODS = const("collectNow,getBaseline,getStatus,restart,selfTest")


def start(
    outbox,
    connection_string=None,
    ca=(),
    certificate=None,
    provisioning=None,
    client=None,
    module_identity=False,
    state=FOLDER,
    journal=True,
    watchdog=0,
    system=False,
):
    """Starts the agent beside the application, in its asyncio loop; returns the Agent.

    `vedette.start` takes `outbox_size` in place of `outbox`: bytes for what is not acknowledged.
    Either `connection_string` with `ca` (root certificates as DER: bytes or paths), and the agent
    has a hub client of its own; with `certificate`, a pair of certificate and private key as DER,
    no key is in the string. Or `provisioning` in place of the string: a dict of `scope`,
    `registration_id`, `key` unless there is a certificate, and `host`, as in
    iothub.dps.Provisioning. Or `client`, an iothub.HubClient that the application owns and
    starts, and `module_identity` says whether it is a module's. `state` is the folder that keeps
    the last good configuration, and with `journal` a copy of the outbox. `watchdog`, in seconds,
    starts the board's, fed as long as the loop lives. With `system`, on Linux, it watches all
    programs, not this one only.
    Errors: HubError "credentials" for a connection string or a key that is not one.
    """
    own = client is None
    if own:
        if provisioning:
            from iothub.dps import Provisioning

            credentials = Provisioning(
                certificate=certificate, store=state + "/hub.json", **provisioning
            )
            client = HubClient(None, ca, credentials, socket=sockets.own_socket)
        else:
            credentials = Credentials.parse(connection_string or "", certificate)
            client = HubClient(credentials, ca, socket=sockets.own_socket)
        module_identity = "/" in credentials.client_id
    journal = state + "/journal" if journal else None
    agent = Agent(client, own, module_identity, Store(state), outbox, journal)
    if watchdog:
        agent.watchdog = agent.port().watchdog(watchdog)
    agent.system = system
    begin(agent)
    return agent


def begin(agent):
    """Loads the last good configuration, starts the collectors and connects."""
    from . import desired  # which imports this module

    if agent.journal:
        agent.journal.load()
    desired.load(agent)
    for name in collectors.RESIDENT:
        agent.resident[name] = collectors.load(name, agent)  # None: not on this platform
    restart(agent, COLLECTORS)
    scheduler = agent.scheduler
    scheduler.add("Alerts", agent.check_alerts, _ALERTS_S, 0, _ALERTS_S)
    scheduler.every_beat(agent.beat)
    agent.callbacks = [agent.on_connection, agent.configuration.on_desired]
    client = agent.client
    client.on_connection(agent.callbacks[0])
    client.on_desired(agent.callbacks[1])
    for name in _METHODS.split(","):
        handler = agent.handler(name)
        try:
            client.on_method(name, handler)
            agent.callbacks.append(handler)
        except ValueError:
            log.warning("the application has a method %s: the agent's is not offered" % name)
    if agent.own_client:
        client.start()
    agent.tasks = [
        asyncio.create_task(agent.go_on(scheduler.run, agent.after_jobs)),
        asyncio.create_task(agent.go_on(agent.sender.run)),
        asyncio.create_task(agent.go_on(agent.configuration.run)),
    ]
    if agent.journal:
        agent.tasks.append(asyncio.create_task(agent.go_on(agent.journal.run)))


async def end(agent, timeout):
    """Hands over what was collected, sends what it can within `timeout` seconds, and ends."""
    for task in agent.tasks:
        task.cancel()
    agent.tasks = []
    for callback in agent.callbacks:  # the client may be the application's, and go on
        agent.scheduler.attempt("a callback", agent.client.forget, callback)
    agent.callbacks = []
    whole = hand_over(agent)
    try:
        await asyncio.wait_for(_send_rest(agent, whole), timeout)
    except Exception as error:  # the hub's, too late, or no heap
        log.warning("stopped with %d collections unsent: %r" % (agent.outbox.count, error))
    _halt(agent, COLLECTORS)
    if agent.journal:
        await agent.journal.save()
    if agent.own_client:
        await agent.client.stop()


async def _send_rest(agent, whole):
    await agent.sender.flush()
    if not whole:  # there is room now
        hand_over(agent)
        await agent.sender.flush()


def hand_over(agent):
    """Moves all that was collected into the outbox; False when it has no room for all."""
    attempt = agent.scheduler.attempt
    return all([attempt(name, each.hand_over) for name, each in agent.running.items()])


async def handed_over(agent, names=COLLECTORS):
    """Returns when all that was collected is in the outbox, and being sent.

    Without `names`, collectors that are to start anew, it does not wait for room.
    """
    while not hand_over(agent) and names:
        agent.sender.wake()
        await asyncio.sleep(_WAIT_S)
    agent.sender.wake()


def restart(agent, names):
    """Stops these collectors, and starts those that the settings want, as they want them."""
    _halt(agent, names)
    for name in names:
        resident = agent.resident.get(name, True)
        if resident and not agent.settings[name + "_Disabled"]:
            agent.since[name] = clock.uptime()
            if name in agent.resident:
                if agent.scheduler.attempt(name, resident.start) is False:
                    continue
                agent.running[name] = resident
            priority, period, longest = agent.settings.schedule(name)
            order = priority * len(COLLECTORS) + COLLECTORS.index(name)
            agent.scheduler.add(name, agent.collect, period, order, longest)


def _halt(agent, names):
    for name in names:
        agent.scheduler.remove(name)
        resident = agent.running.pop(name, None)
        if resident:
            agent.scheduler.attempt(name, resident.stop)


async def reconnect(agent):
    """Opens the agent's own hub connection anew; an application's is the application's."""
    if agent.own_client:
        await agent.client.stop()
        agent.client.start()


def identity(store):
    """Returns the UUID made once for the device and kept."""
    known = store.load("agent")
    if isinstance(known, dict) and isinstance(known.get("id"), str):
        return known["id"]
    made = events.uuid(os.urandom(16))
    store.keep("agent", {"id": made})
    return made
