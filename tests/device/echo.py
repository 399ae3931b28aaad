"""Echo requests of ICMP, for tests that ping."""

import struct

ICMP, ICMP6 = 1, 58


def request(protocol):
    """An echo request of 64 bytes; of IPv6 the kernel makes the checksum."""
    kind = 128 if protocol == ICMP6 else 8
    message = bytearray(struct.pack(">BBHHH", kind, 0, 0, 7, 1) + b"p" * 56)
    if protocol == ICMP:
        total = sum(struct.unpack(">32H", message))
        struct.pack_into(">H", message, 2, ~(total % 0xFFFF) & 0xFFFF)
    return message
