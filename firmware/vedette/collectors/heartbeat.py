"""A sign of life, with how long the device has been up."""

from iothub import clock

from . import Base


class Collector(Base):
    name = event = "Heartbeat"

    async def collect(self):
        self.emit(("uptime",), [[clock.uptime()]])
