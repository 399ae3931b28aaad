"""What other programs on this Linux system send and receive, into the flow table.

The tap sees what this process does, and knows more of it: these flows are left to it.
"""

import asyncio
import gc

from micropython import const

from .. import log
from .connections import Connections
from .keep import keep
from .own import Own
from .owners import Owners
from .packets import Packets

_GARBAGE = const(256 << 10)


class Traffic:
    """Runs from when it is made until `stop()`, as far as this process may look.

    `owners` tells the processes that the flows belong to; `look` looks at all sockets now.
    """

    def __init__(self, agent, table):
        # What is kept are small pieces among much garbage: collected late, they would lie all over
        # the heap, and leave no room for a buffer.
        gc.threshold(_GARBAGE)
        self._own = Own(table)
        self.owners = Owners(self._own)
        self._connections = Connections(table, self._own, self.owners)
        self.look = self._connections.look
        try:
            self._packets = Packets(table, self._own, self.owners, self._connections.tried)
        except OSError:
            self._packets = None
            self._connections.udp = True
            log.info("may not see packets: no ICMP, no bytes of UDP")
        runs = [self._connections.run, self._connections.run_gone, self.owners.run]
        if self._packets:
            runs.append(self._packets.run)
        self._tasks = [asyncio.create_task(keep(agent, "traffic", run)) for run in runs]

    def stop(self):
        for task in self._tasks:
            task.cancel()
        for part in (self._packets, self._connections):
            if part:
                part.close()
        self._own.close()
