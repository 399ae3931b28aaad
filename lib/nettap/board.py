"""Where sockets end, on boards (ESP32, STM32, RP2): addresses are tuples of text and port."""

import sys


def decode(address):
    """(address as 4 or 16 bytes, port) of what `connect` takes and `accept` returns.

    Errors: ValueError where the first item is not a numeric address.
    """
    return _parse(address[0]), address[1]


def numeric(address, getaddrinfo):
    """The address with its host name resolved, where `connect` takes names: on ESP32.

    Resolved once, here, so that the flow has the very address that is connected to.
    """
    if sys.platform == "esp32":
        return getaddrinfo(address[0], address[1])[0][-1]
    return address


def local_end(sock, udp, v6):
    """None: no board tells a socket's local end."""
    return None


def _parse(text):
    if not text:
        return bytes(4)
    if ":" not in text:
        return bytes([int(part) for part in text.split(".")])
    head, _, tail = text.split("%")[0].partition("::")
    left, right = _words(head), _words(tail)
    return b"".join(left + [b"\0\0"] * (8 - len(left) - len(right)) + right)


def _words(text):
    return [int(part, 16).to_bytes(2, "big") for part in text.split(":") if part]
