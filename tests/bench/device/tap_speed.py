"""A 64-byte socket call through the tap with counting, against the native call, in turn.

Both sides use a connected pair on loopback of their own. Only the calls are timed; what they move
is drained, or put there, by native calls outside the timed part.
"""

import json
import socket as native
import time

import flowtable
from nettap import sockets

_ROUNDS = 60
_CALLS = 400
_SIZE = 64
_TCP = 6
_TCP_NODELAY = 1


def pair(module):
    """Returns (a socket of `module`, its native peer)."""
    listener = native.socket()
    port = 20000 + time.ticks_us() % 30000
    while True:
        try:
            listener.bind(native.getaddrinfo("127.0.0.1", port)[0][-1])
            break
        except OSError:
            port += 1
    listener.listen(1)
    near = module.socket()
    near.connect(native.getaddrinfo("127.0.0.1", port)[0][-1])
    far = listener.accept()[0]
    # Or `near` would wait for what Nagle's algorithm holds back. What it sends itself is held
    # back: a call that sends no packet is the cheapest, and the ratio the worst.
    far.setsockopt(_TCP, _TCP_NODELAY, 1)
    listener.close()
    return near, far


def fill(sock):
    data = bytes(_SIZE)
    for _ in range(_CALLS):
        sock.send(data)


def empty(sock):
    left = _CALLS * _SIZE
    while left:
        left -= len(sock.recv(min(left, 16384)))


def time_send(sock):
    data = bytes(_SIZE)
    began = time.ticks_us()
    for _ in range(_CALLS):
        sock.send(data)
    return time.ticks_diff(time.ticks_us(), began)


def time_recv(sock):
    began = time.ticks_us()
    for _ in range(_CALLS):
        sock.recv(_SIZE)
    return time.ticks_diff(time.ticks_us(), began)


def time_readinto(sock):
    buffer = bytearray(_SIZE)
    began = time.ticks_us()
    for _ in range(_CALLS):
        sock.readinto(buffer)
    return time.ticks_diff(time.ticks_us(), began)


def main():
    sockets.install(flowtable.FlowTable())
    import socket as tapped

    assert tapped is not native
    plain, plain_peer = pair(native)
    seen, seen_peer = pair(tapped)
    samples = {"tap.send": [], "tap.recv": [], "tap.readinto": []}
    for _ in range(_ROUNDS):
        times = []
        for near, far in ((plain, plain_peer), (seen, seen_peer)):
            sent = time_send(near)
            empty(far)
            fill(far)
            received = time_recv(near)
            fill(far)
            times.append((sent, received, time_readinto(near)))
        for name, without, through in zip(("send", "recv", "readinto"), *times):
            samples["tap." + name].append(through / without)
    assert sockets.errors == 0
    print(json.dumps(samples))


main()
