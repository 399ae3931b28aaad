"""Network time, believed when two servers agree: SNTP version 4 (RFC 4330, RFC 5905)."""

import asyncio
import os
import socket
import time

from iothub import clock
from micropython import const
from nettap import sockets

from . import log, ports

_PACKET = const(48)
_VERSION_4_CLIENT = const(0x23)
_SERVER = const(4)
_STRATUM_MAX = const(15)
_FROM_1900_TO_1970 = const(2208988800)
_ERA = const(1 << 32)  # the seconds of RFC 5905's era 0 end in 2036
_TIMEOUT_MS = const(3000)
_POLL_MS = const(20)
_AGREE_MS = const(2000)
_DAY_S = const(86400)
_RETRY_S = const(60)


async def synchronise(servers):
    """Sets the clock by two servers ("host" or "host:port"). Returns the seconds until the next.

    The time is not believed when they differ by over 2 s, or it is before this was built.
    """
    start = time.ticks_ms()
    answers = []
    for server in servers:
        answer = await _ask(server, start)
        if answer is None:
            log.warning("time: %s does not answer" % server)
            return _RETRY_S
        answers.append(answer)
    first, second = answers
    seconds = ((first + second) // 2 + time.ticks_diff(time.ticks_ms(), start) + 500) // 1000
    if abs(first - second) > _AGREE_MS:
        apart = abs(first - second) // 1000
        log.warning("time: %s differ by %d s" % (" and ".join(servers), apart))
    elif not clock.plausible(seconds):
        log.warning("time: %s is before this was built" % clock.utc(seconds))
    else:
        off = seconds - clock.unix()
        if off:
            ports.load().set_clock(seconds)
            log.info("time: %s, the clock was %d s off" % (clock.utc(seconds), abs(off)))
        return _DAY_S
    return _RETRY_S


async def _ask(server, start):
    """Returns the server's time at `start`, in ms since 1970; None without a sound answer."""
    host, _, port = server.partition(":")
    link = None
    try:
        # Without hints: lwIP's ports know of streams only, and warn.
        family, _, _, _, address = socket.getaddrinfo(host, int(port or 123))[0]
        link = sockets.own_socket(family, socket.SOCK_DGRAM)
        link.setblocking(False)
        # What the answer has to repeat: others cannot guess it.
        nonce = os.urandom(8)
        sent = time.ticks_ms()
        link.sendto(bytes([_VERSION_4_CLIENT]) + bytes(_PACKET - 9) + nonce, address)
        while time.ticks_diff(time.ticks_ms(), sent) < _TIMEOUT_MS:
            await asyncio.sleep_ms(_POLL_MS)
            try:
                data = link.recv(_PACKET)
            except OSError:  # nothing there yet; or refused, which a later answer may mend
                continue
            if _sound(data, nonce):
                now = time.ticks_ms()
                half = time.ticks_diff(now, sent) // 2
                return _milliseconds(data) + half - time.ticks_diff(now, start)
    except OSError:  # no such name, or no way there
        pass
    finally:
        if link:
            link.close()
    return None


def _sound(data, nonce):
    return (
        len(data) == _PACKET
        and data[0] >> 6 != 3  # the server's own clock is not synchronised
        and data[0] & 7 == _SERVER
        and 1 <= data[1] <= _STRATUM_MAX
        and data[24:32] == nonce
        and any(data[40:48])
    )


def _milliseconds(data):
    """The transmit timestamp, in ms since 1970."""
    seconds = int.from_bytes(data[40:44], "big")
    if not seconds >> 31:
        seconds += _ERA
    fraction = int.from_bytes(data[44:46], "big")
    return (seconds - _FROM_1900_TO_1970) * 1000 + (fraction * 1000 >> 16)
