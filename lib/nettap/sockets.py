"""The tap in the socket layer: sees connections and counts their bytes, for a sink.

`install(sink)` puts a replacement of the module `socket` (and `usocket`) in place; do it before
anything that imports it at its top. An application's sockets are then proxies with the stream
protocol, which poll, asyncio and TLS take like native ones. It is visibility, not enforcement:
code that keeps the native module passes by. Sockets that are not TCP or UDP over IP are native.

A sink has open(protocol, direction, laddr, lport, raddr, rport, app) -> token > 0 or -1,
count_in(token, size) and count_out(token, size) -> 1, or 0 for a token that is stale, and
set_app(token, app), as `flowtable.FlowTable`. If `no_raise` is true on it, its two counting
functions promise not to raise. Other errors of a sink are swallowed and counted in `errors`.

docs/nettap.md says what is seen, and where a proxy differs from a native socket.
"""

import socket as _native
import sys

from micropython import const

from nettap import front, hosts, protocols
from nettap.counting import counting, uncounted
from nettap.proxy import Socket

_MAX_LISTENING = const(16)
_MAX_HELD = const(64)
_MODULES = ("socket", "usocket")

include_own = False  # whether own_socket() is reported as well
local_address = None  # a function of the remote address that gives the interface's, as bytes
errors = 0  # swallowed inside the tap

host_name = hosts.host_name
app_name = protocols.app_name

_tap = None


class _Tap:
    # What the sockets of one install() share.

    def __init__(self, sink):
        if hasattr(_native, "sockaddr"):
            from nettap import linux as port
        else:
            from nettap import board as port
        self.port = port
        self.sink = sink
        safe = getattr(sink, "no_raise", False)
        counts = (sink.count_in, sink.count_out)
        self.count = [count if safe else self._guarded(count) for count in counts]
        ins, outs = [counting(count) for count in self.count]
        self.stops = (ins[0], outs[0])
        self.wrap = (ins[1], outs[1], ins[2])  # by _WAYS of proxy.py
        self.replaced = {name: sys.modules[name] for name in _MODULES if name in sys.modules}
        self.listening = []
        self.held = []  # sockets whose local end is to be looked up

    def _guarded(self, count):
        def guarded(token, size):
            try:
                return count(token, size)
            except Exception:
                self.swallow()
                return 1

        return guarded

    def swallow(self):
        global errors
        errors += 1

    def getaddrinfo(self, host, *rest):
        found = _native.getaddrinfo(host, *rest)
        try:
            if hosts.is_name(host):
                for entry in found:
                    hosts.remember(self.port.decode(entry[-1])[0], host)
        except Exception:
            self.swallow()
        return found

    def local_address(self, remote):
        return local_address(remote) if local_address else None

    def list(self, *entry):
        if len(self.listening) == _MAX_LISTENING:
            self.listening.pop(0)
        self.listening.append(entry)

    def hold(self, sock):
        self.held.append(sock)
        if len(self.held) == _MAX_HELD or self.port.affords():
            self.settle()

    def settle(self):
        while self.held:
            v6 = self.held[0]._v6
            alike = [sock for sock in self.held if sock._v6 == v6]
            self.held = [sock for sock in self.held if sock._v6 != v6]
            ends = self.port.local_ends([sock._native for sock in alike], v6)
            for sock, end in zip(alike, ends):
                sock.settle(end)

    def closing(self, sock):
        if self.listening:
            self.listening = [entry for entry in self.listening if entry[0] != id(sock)]
        if sock in self.held:
            try:
                if self.port.affords():
                    self.settle()
                else:
                    self.held.remove(sock)
                    sock.settle(None)
            except Exception:
                self.swallow()


def install(sink):
    """Put the tap in. Errors: RuntimeError when it is in already."""
    global _tap
    if _tap:
        raise RuntimeError("the tap is in already: call uninstall() first")
    tap = _Tap(sink)
    for name in dir(_native):
        if not name.startswith("__"):
            setattr(front, name, getattr(_native, name))
    front.__name__ = "socket"
    front.socket = Socket
    front.getaddrinfo = tap.getaddrinfo
    _tap = Socket._tap = tap
    for name in _MODULES:
        sys.modules[name] = front


def uninstall():
    """Take the tap out. Proxies that are open go on working, uncounted, for good."""
    global _tap
    if not _tap:
        return
    for name in _MODULES:
        if name in _tap.replaced:
            sys.modules[name] = _tap.replaced[name]
        else:
            del sys.modules[name]
    settle()
    for stop in _tap.stops:
        stop()
    _tap.count = (uncounted, uncounted)
    _tap = Socket._tap = None
    hosts.forget()


def settle():
    """Look up what local ends are not known yet, before the sink is drained.

    On Linux without `ffi` that is one look-up of some milliseconds for all connections that were
    opened since the last; a connection is held back from the sink until then.
    """
    if _tap:
        try:
            _tap.settle()
        except Exception:
            _tap.swallow()


def own_socket(*args):
    """A socket of the agent's own: native, so not reported, unless `include_own`."""
    return Socket(*args) if include_own else _native.socket(*args)


def listening():
    """The sockets that listen, or are bound in UDP, now: a list of (protocol, address, port).

    The address is None for all interfaces. The last 16 are kept.
    """
    return [(entry[1],) + entry[2] for entry in _tap.listening] if _tap else []
