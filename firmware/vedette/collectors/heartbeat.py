"""A sign of life, with how long the device has been up."""

from . import Base


class Collector(Base):
    name = event = "Heartbeat"

    async def collect(self):
        await self.emit("uptime", [[self.agent.port().uptime()]])
