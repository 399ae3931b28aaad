"""What is done with a document of desired properties. Imported when one comes."""

from iothub import HubError
from micropython import const
from nettap import sockets

from . import lifecycle, log
from .settings import COLLECTORS
from .validation import PROBLEMS_MAX, Refused, changes, check, report

_FILE = const("settings")
_TEMPORARY = const(("throttled", "timeout", "server"))


def load(agent):
    """Applies the last good configuration, if one is kept; a damaged one is counted."""
    document = agent.store.load(_FILE)
    if document is None:
        return
    try:
        values, problems, _ = check(document)
    except Refused:
        problems = True
    if problems:
        agent.store.corrupt += 1
    else:
        agent.settings.apply(values)


async def answer(configuration):
    """Applies the document or refuses it, and reports; True when that should be tried again."""
    agent = configuration.agent
    included = sockets.include_own
    problems, unknown = await _take(configuration, configuration.document, configuration.version)
    agent.sender.wake()
    again = await _report(configuration, problems, unknown)
    if sockets.include_own != included:  # a socket is watched from its making, or never
        await lifecycle.reconnect(agent)
    return again


async def _take(configuration, document, version):
    agent = configuration.agent
    unknown = []
    try:
        if document is None:
            raise Refused("was over the limits: it is read again at the next connect")
        values, problems, unknown = check(document)
    except Refused as reason:
        configuration.document = None
        problems = [(configuration.section or "", str(reason))]
    if problems:
        if version != configuration.refused:
            configuration.refused = version
            agent.counters["settings_refused"] += 1
            for key, reason in problems[:PROBLEMS_MAX]:
                agent.complain(key, reason)
        return problems, unknown
    changed = changes(agent.settings, values)
    concerned = COLLECTORS if configuration.applied is None else _concerned(changed)
    if changed or concerned:
        await lifecycle.handed_over(agent, concerned)
        configuration.applied = None
        agent.settings.apply(values)
        lifecycle.restart(agent, concerned)
        agent.store.keep(_FILE, values)
        log.info("applied: " + ", ".join(changed))
    configuration.applied = version
    return problems, unknown


def _concerned(changed):
    """The collectors that these keys are about."""
    owners = [key.partition("_")[0] for key in changed]
    if "CollectorsCore" in owners:
        return COLLECTORS
    return [name for name in COLLECTORS if name in owners]


async def _report(configuration, problems, unknown):
    agent = configuration.agent
    state = report(configuration.applied, problems, unknown, agent.settings)
    section = configuration.section
    try:
        await agent.client.report({section: state} if section else state)
    except HubError as error:  # after a connect the twin comes, and is answered, anyway
        log.warning("configuration not reported: %s" % error)
        return error.code in _TEMPORARY and agent.client.connected
    return False
