"""A hub client for tests of the agent in one process."""

import asyncio
import json

from iothub import HubError
from vedette import collectors

collectors.RESIDENT = ("NetworkActivity",)  # not what else runs on the machine that tests run on


class Client:
    """Stands in for the hub client: a twin to push, messages and reports to look at."""

    def __init__(self):
        self.connected = True
        self.last_error = None
        self.stats = {"connects": 1, "failures": 0}
        self.reports = []
        self.events = []
        self.push = None
        self.methods = {}

    def on_connection(self, callback):
        pass

    def on_desired(self, callback):
        self.push = callback

    def on_method(self, name, handler):
        if name in self.methods:
            raise ValueError("twice")
        self.methods[name] = handler

    def forget(self, callback):
        if self.push == callback:
            self.push = None
        self.methods = {name: each for name, each in self.methods.items() if each != callback}

    async def report(self, patch):
        if not self.connected:
            raise HubError("closed", "no connection")
        self.reports.append(json.loads(json.dumps(patch)))

    async def send_stream(self, length, writer, properties=None):
        body = bytearray()

        async def write(chunk):
            body.extend(chunk)

        await writer(write)
        self.events += json.loads(body)["Events"]

    async def until(self, count):
        """Waits until so many reports have come; returns the last."""
        for _ in range(300):
            if len(self.reports) >= count:
                return self.reports[count - 1]
            await asyncio.sleep_ms(10)
        raise AssertionError("only %d reports" % len(self.reports))

    def named(self, name):
        """The events of that name that have arrived."""
        return [event for event in self.events if event["Name"] == name]
