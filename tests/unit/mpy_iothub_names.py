"""Where the hub is: `getaddrinfo` holds the loop, so it is called as seldom as can be."""

import asyncio
import os
import socket as real
import sys


class _Sockets:
    """Stands in for the module `socket`; counts how often a name was looked up."""

    asked = 0
    also = ()  # addresses behind those that there are

    def getaddrinfo(self, host, port, *args):
        self.asked += 1
        found = real.getaddrinfo(host, port, *args)
        return found + [real.getaddrinfo(other, port, *args)[0] for other in self.also]

    def __getattr__(self, name):
        return getattr(real, name)


sockets = sys.modules["socket"] = _Sockets()

from iothub import HubError, connecting  # noqa: E402
from iothub.link import Link  # noqa: E402
from iothub.mqtt import Session  # noqa: E402


class _Where:
    host = "localhost"
    client_id = user = resource = policy = "x"
    key = b"x"
    certificate = None

    def __init__(self, port):
        self.port = port


def _listen():
    listener = real.socket()
    for _ in range(20):
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 10000
        try:
            listener.bind(real.getaddrinfo("127.0.0.1", port)[0][-1])
            break
        except OSError:
            pass  # another has it
    listener.listen(5)
    return listener, port


async def _find(link, where):
    await connecting.find(link, where, real.socket, connecting.tls_context((), where))
    link.close()


async def test_a_name_is_looked_up_once_and_again_when_its_address_is_no_good():
    link = Link()
    listener, port = _listen()
    other, other_port = _listen()
    for _ in range(3):
        await _find(link, _Where(port))
    assert sockets.asked == 1
    listener.close()
    for asked in (1, 2):  # the address that is known, then a new one
        try:
            await _find(link, _Where(port))
            raise AssertionError("connected")
        except HubError as e:
            assert e.code == "unreachable"
        assert sockets.asked == asked
    await _find(link, _Where(other_port))
    assert sockets.asked == 3
    other.close()


async def _hang_up(listener, seen):
    listener.setblocking(False)
    while True:
        try:
            listener.accept()[0].close()
            seen.append(listener)
        except OSError:
            pass
        await asyncio.sleep_ms(20)


async def _refused(session, port):
    try:
        await session.run(_Where(port), ())
        raise AssertionError("connected")
    except HubError:
        pass


async def test_a_name_is_looked_up_again_when_another_answers_at_its_address():
    listener, port = _listen()
    other = asyncio.create_task(_hang_up(listener, []))
    session = Session(None, None, {})
    before = sockets.asked
    for asked in (1, 2):
        await _refused(session, port)
        assert sockets.asked - before == asked
    other.cancel()
    listener.close()


async def test_of_several_addresses_each_has_its_turn_to_be_the_first():
    listener, port = _listen()
    other = real.socket()
    other.bind(real.getaddrinfo("127.0.0.2", port)[0][-1])
    other.listen(5)
    seen = []
    tasks = [asyncio.create_task(_hang_up(each, seen)) for each in (listener, other)]
    session = Session(None, None, {})
    sockets.also = ("127.0.0.2",)
    for _ in range(4):
        await _refused(session, port)
    sockets.also = ()
    assert seen == [listener, other, listener, other]
    for task in tasks:
        task.cancel()
    listener.close()
    other.close()
