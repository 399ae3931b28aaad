"""What listens on the device: of the application, by the tap, or of a whole Linux system."""

from flowtable import TCP
from micropython import const
from nettap import sockets

from .. import events
from . import Base

_COLUMNS = const("transport_protocol,local_address,local_port,process_id,process_name")
_ROWS_MAX = const(64)  # of one event
_ANY = bytes(4)


class Collector(Base):
    name = event = "ListeningPorts"
    event_type = "Security"

    async def collect(self):
        agent = self.agent
        if agent.system:
            from ..ports.listening import listening

            found = await listening()
        else:
            found = [entry + (None, None) for entry in sockets.listening()]
        text = events.address_text
        rows = [
            ["TCP" if protocol == TCP else "UDP", text(address or _ANY), port, pid, name]
            for protocol, address, port, pid, name in found
        ]
        seconds = self.interval()
        for at in range(0, max(len(rows), 1), _ROWS_MAX):
            pieces = events.payload(_COLUMNS, rows[at : at + _ROWS_MAX], agent.objects)
            await agent.deliver(self.name, [self.head()] + pieces, seconds)
