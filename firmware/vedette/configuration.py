"""The way of a twin's desired properties into the running settings, and of the answer back."""

import asyncio

from iothub import HubError
from micropython import const
from nettap import sockets

from . import log, settings

_SECTION = "microAgent"  # where the keys stand in the twin of a device identity
_FILE = "settings"
_WAIT_S = const(1)
_RETRY_S = const(10)
_TEMPORARY = ("throttled", "timeout", "server")


class Configuration:
    """Keeps the desired document as the hub has it, as patches need it."""

    def __init__(self, agent, module_identity):
        self._agent = agent
        self._section = None if module_identity else _SECTION
        self._document = None  # not known: none came yet, or one over the limits
        self._version = 0
        self._applied = 0
        self._refused = None
        self._changed = asyncio.Event()

    def load(self):
        """Applies the last good configuration; a damaged one counts, and the defaults stay."""
        document = self._agent.store.load(_FILE)
        if document is None:
            return
        try:
            values, problems, _ = settings.check(document)
        except settings.Refused:
            problems = True
        if problems:
            self._agent.store.corrupt += 1
        else:
            self._agent.settings.apply(values)

    def on_desired(self, desired, version, full):
        """Takes the twin's desired properties, all (full) or a merge patch (RFC 7396)."""
        if self._section:
            if not full and self._section not in desired:
                return
            desired = desired.get(self._section)
            if desired is None:
                full, desired = True, {}
        if full or not isinstance(desired, dict):
            self._document = desired
        elif self._document is not None:
            merged = dict(self._document) if isinstance(self._document, dict) else {}
            for key, value in desired.items():
                merged[key] = value
                if value is None:
                    del merged[key]
            self._document = merged
        self._version = version
        self._changed.set()

    async def run(self):
        """Runs for ever: applies each document as a whole or not at all, and reports on it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._answer()
            except Exception as error:  # such as no heap for now: the document is tried again
                self._agent.scheduler.errors += 1
                log.failed("configuration", error)
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    async def _answer(self):
        included = sockets.include_own
        problems, unknown = await self._take(self._document, self._version)
        self._agent.sender.wake()
        await self._report(problems, unknown)
        if sockets.include_own != included:  # a socket is watched from its making, or never
            await self._agent.reconnect()

    async def _take(self, document, version):
        agent = self._agent
        unknown = []
        try:
            if document is None:
                raise settings.Refused("was over the limits: it is read again at the next connect")
            values, problems, unknown = settings.check(document)
        except settings.Refused as reason:
            self._document = None
            problems = [(self._section or "", str(reason))]
        if problems:
            if version != self._refused:
                self._refused = version
                agent.counters["settings_refused"] += 1
                for key, reason in problems[: settings.PROBLEMS_MAX]:
                    agent.complain(key, reason)
            return problems, unknown
        changed = agent.settings.changes(values)
        if changed:
            while not agent.hand_over():
                agent.sender.wake()
                await asyncio.sleep(_WAIT_S)
            agent.settings.apply(values)
            agent.restart(_concerned(changed))
            agent.store.keep(_FILE, values)
            log.info("applied: " + ", ".join(changed))
        self._applied = version
        return problems, unknown

    async def _report(self, problems, unknown):
        agent = self._agent
        state = settings.report(self._applied, problems, unknown, agent.settings)
        try:
            await agent.client.report({self._section: state} if self._section else state)
        except HubError as error:  # after a connect the twin comes, and is answered, anyway
            log.warning("configuration not reported: %s" % error)
            if error.code in _TEMPORARY and agent.client.connected:
                await asyncio.sleep(_RETRY_S)
                self._changed.set()


def _concerned(changed):
    """The collectors that these keys are about."""
    owners = [key.partition("_")[0] for key in changed]
    if "CollectorsCore" in owners:
        return settings.COLLECTORS
    return [name for name in settings.COLLECTORS if name in owners]
