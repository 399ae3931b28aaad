"""Where sockets end, on boards (ESP32, STM32, RP2): addresses are tuples of text and port."""

import sys


def decode(address):
    """(address as 4 or 16 bytes, port) of what `connect` takes and `accept` returns.

    Errors: ValueError where the first item is not a numeric address.
    """
    text, port = address[0], address[1]
    if not text:
        return bytes(4), port
    if ":" not in text:
        return bytes([int(part) for part in text.split(".")]), port
    head, _, tail = text.split("%")[0].partition("::")
    data = bytearray(16)
    at = 0
    for part in head.split(":"):
        if part:
            data[at : at + 2] = int(part, 16).to_bytes(2, "big")
            at += 2
    at = 16
    for part in reversed(tail.split(":")):
        if part:
            data[at - 2 : at] = int(part, 16).to_bytes(2, "big")
            at -= 2
    return bytes(data), port


def connect(sock, address, udp):
    """Connect a native socket; (OSError or None, the address, 0: its local port is not known).

    ESP32 takes a host name. It is resolved here, once, so that the flow has the very address that
    is connected to.
    """
    if sys.platform == "esp32":
        try:
            from socket import getaddrinfo  # the tap's, which remembers the name

            address = getaddrinfo(address[0], address[1])[0][-1]
        except Exception:  # connect says what is wrong with it
            pass
    try:
        sock.connect(address)
        return None, address, 0
    except OSError as error:
        return error, address, 0


def local_end(sock, udp, local, remote):
    """`local` as it is: no board tells a socket's local end."""
    return local
