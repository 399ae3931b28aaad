"""The reference set of flows: a board in a LAN over two hours, made from a seed.

The mix in 256 flows: 5 connections to an MQTT broker, 72 HTTPS requests to 9 hosts, 40 DNS queries
to 2 resolvers, 16 NTP exchanges with 4 servers, 88 HTTP requests from 14 hosts of the LAN, 20 mDNS
speakers, and 15 others (SSH, Telnet, ICMP, services that have no name here). One remote host in
five is on IPv6. Host names are known for what the board itself resolved.

The same on MicroPython and CPython: the random numbers are Lehmer's, with the multiplier and the
modulus of Park and Miller, "Random number generators: good ones are hard to find", CACM 1988.
"""

INTERVAL = 7200  # seconds

_TCP, _UDP, _ICMP = 6, 17, 1
_IN, _OUT = 0, 1

# How many; what it is; how many hosts; the service's port; most bytes in and out; host names
_MIX = (
    (5, _OUT, _TCP, "MQTT", 1, 8883, 60000, 90000, "hub-weu-%d.azure-devices.example"),
    (72, _OUT, _TCP, "HTTPS", 9, 443, 40000, 6000, "api%d.cloud.example"),
    (40, _OUT, _UDP, "DNS", 2, 53, 400, 120, None),
    (16, _OUT, _UDP, "NTP", 4, 123, 96, 96, "%d.pool.ntp.example"),
    (88, _IN, _TCP, "HTTP", 14, 80, 900, 20000, None),
    (20, _IN, _UDP, "mDNS", 20, 5353, 6000, 600, None),
    (4, _IN, _TCP, "SSH", 2, 22, 9000, 9000, None),
    (3, _IN, _TCP, "Telnet", 3, 23, 200, 100, None),
    (4, _OUT, _ICMP, None, 4, 0, 600, 600, None),
    (4, _OUT, _TCP, None, 4, 7000, 30000, 30000, None),
)


class _Random:
    def __init__(self, seed):
        self._state = seed % 2147483646 + 1

    def below(self, limit):
        self._state = self._state * 48271 % 2147483647
        return self._state % limit


def _words(*words):
    return b"".join([bytes([word >> 8, word & 255]) for word in words])


_LOCAL = {
    False: bytes([192, 168, 20, 57]),
    True: _words(0xFD12, 0x3456, 0x789A, 1, 0x21A, 0x2BFF, 0xFE3C, 0x4D5E),
}


def _remote(group, number, inside, v6):
    if inside:
        if v6:
            return _words(0xFE80, 0, 0, 0, 0x5054, 0xFF, 0xFE12, 0x3400 + number)
        return bytes([192, 168, 20, 100 + number])
    if v6:
        return _words(0x2001, 0xDB8, 0x4000 + group, number, 0, 0, 0, 0x100 + number)
    return bytes([203, 0, 113, 20 * group + 7 * number])


def flows(seed=1, count=256):
    """Returns a list of `count` (256 at most) different flows, in random order:

    (protocol, direction, application or None, local address, local port, remote address, remote
    port, bytes in, bytes out, hits, first seen, last seen, host name or None); addresses are
    bytes, times seconds since the interval began.
    """
    random = _Random(seed)
    groups = [group for group, kind in enumerate(_MIX) for _ in range(kind[0])]
    made = []
    for number in range(count):
        group = groups[number * len(groups) // count]
        made.append(_flow(random, number, group, *_MIX[group][1:]))
    for last in range(count - 1, 0, -1):
        other = random.below(last + 1)
        made[last], made[other] = made[other], made[last]
    return made


def _flow(random, number, group, direction, protocol, app, hosts, port, most_in, most_out, name):
    host = number % hosts
    v6 = (host + group) % 5 == 4
    client = 32768 + number * 100 + random.below(100)
    if port in (0, 5353):
        client = port
    ports = (client, port) if direction == _OUT else (port, client)
    remote = _remote(group, host, direction == _IN or app == "DNS", v6)
    hits = 1 + random.below(2) * random.below(8)
    received, sent = hits * (most_in // 8), hits * (most_out // 8)
    first = random.below(INTERVAL)
    last = first + random.below(INTERVAL - first)
    return (
        protocol,
        direction,
        app,
        _LOCAL[v6],
        ports[0],
        remote,
        ports[1],
        random.below(received + 1),
        random.below(sent + 1),
        hits,
        first,
        last,
        name % host if name else None,
    )
