"""The twin's desired properties as the hub has them; each new document is handed to `desired`."""

import asyncio

from micropython import const

from . import log
from .cold import Cold

_RETRY_S = const(10)


class Configuration:
    """Keeps the desired document, as patches need it.

    `section` is where the agent's keys stand in the twin of a device identity; None: at the root,
    in a module's. `document` None is one that is not known: none came yet, or one over the limits.
    `version` is the document's, `applied` that of the last good one (None: an error met it half
    way, and all of it is done again), `refused` the last bad one's.
    """

    def __init__(self, agent, module_identity):
        self.agent = agent
        self.section = None if module_identity else "microAgent"
        self.document = None
        self.version = self.applied = 0
        self.refused = None
        self._changed = asyncio.Event()

    def on_desired(self, desired, version, full):
        """Takes the twin's desired properties, all (full) or a merge patch (RFC 7396)."""
        if self.section:
            if not full and self.section not in desired:
                return
            desired = desired.get(self.section)
            if desired is None:
                full, desired = True, {}
        if full or not isinstance(desired, dict):
            self.document = desired
        elif self.document is not None:
            merged = dict(self.document) if isinstance(self.document, dict) else {}
            for key, value in desired.items():
                merged[key] = value
                if value is None:
                    del merged[key]
            self.document = merged
        self.version = version
        self._changed.set()

    async def run(self):
        """Runs for ever: applies each document as a whole or not at all, and reports on it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            again = True
            try:
                again = await self._answer()
            except Exception as error:  # such as no heap for now: the document is tried again
                self.agent.scheduler.errors += 1
                log.failed("configuration", error)
            if again:
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    async def _answer(self):
        with Cold():
            from . import desired  # not in `run`, which would keep it

            return await desired.answer(self)
