"""Which process had the local port of a flow, as far as proc(5) shows this process its files."""

import asyncio
import json
import time

from flowtable import TCP, UDP
from micropython import const

from . import proc

_PORTS_MAX = const(512)
_PERIOD_MS = const(1000)
_SHARE = const(250)  # looking through all open files may take this part of the time
_COLUMNS = ("transport_protocol", "local_port", "process_id", "process_name")


class Owners:
    """`own.udp` has the inode of each bound UDP port."""

    def __init__(self, own):
        self._own = own
        self._ports = {}  # inode by (protocol, port), of the flows since `forget`
        self._known = {}  # (process id, name), or None, by inode

    def note(self, protocol, port, inode):
        """The flow that was just counted has this port and socket; 0: not known, or not yet."""
        key = protocol, port
        if key in self._ports or len(self._ports) < _PORTS_MAX:
            self._ports[key] = inode or self._ports.get(key, 0)

    async def run(self):
        """Runs for ever."""
        while True:
            began = time.clock()
            known, ports = self._known, self._ports
            if len(known) > _PORTS_MAX:  # a port that serves has a new socket for each client
                self._known = {i: known[i] for i in ports.values() if i in known}
            for key, inode in self._ports.items():
                if not inode and key[0] == UDP:
                    self._ports[key] = self._own.udp.get(key[1], 0)
            wanted = {
                inode for inode in self._ports.values() if inode and inode not in self._known
            }
            if wanted:
                found = await proc.owners(wanted)
                for inode in wanted:
                    pid = found.get(inode)
                    self._known[inode] = (pid, proc.name(pid)) if pid else None
            cost_ms = int((time.clock() - began) * 1000 * _SHARE)
            await asyncio.sleep_ms(max(_PERIOD_MS, cost_ms))

    def rows(self, size, objects):
        """JSON of what is known of the flows since `forget`, in some `size` bytes."""
        rows = []
        for (protocol, port), inode in self._ports.items():
            owner = self._known.get(inode)
            if owner and size > 0:
                rows.append(("TCP" if protocol == TCP else "UDP", port) + owner)
                size -= len(owner[1] or "") + (100 if objects else 24)
        if objects:
            return json.dumps([dict(zip(_COLUMNS, row)) for row in rows], separators=(",", ":"))
        return json.dumps({"columns": _COLUMNS, "rows": rows}, separators=(",", ":"))

    def forget(self):
        """They were told. What is still being looked for is told with the next flows."""
        ports = self._ports
        self._ports = {key: i for key, i in ports.items() if i and i not in self._known}
