"""Networks as in "10.0.0.0/8,fd00::/8" (CIDR, RFC 4632 and RFC 4291). Imported when needed."""

from micropython import const

_MAPPED = const(b"\0\0\0\0\0\0\0\0\0\0\xff\xff")  # IPv4 in IPv6, RFC 4291 section 2.5.5.2


def parse(text):
    """Returns a list of (address of 16 bytes, bits); ValueError names what is not a network."""
    return [_network(part.strip()) for part in text.split(",") if part.strip()]


def inside(address, networks):
    """Whether an address of 4 or 16 bytes is in one of them."""
    address = _wide(address)
    for network, bits in networks:
        whole = bits >> 3
        shift = 8 - (bits & 7)
        if address[:whole] == network[:whole] and (
            shift == 8 or address[whole] >> shift == network[whole] >> shift
        ):
            return True
    return False


def _wide(address):
    return _MAPPED + address if len(address) == 4 else address


def _network(text):
    address, slash, bits = text.partition("/")
    try:
        if ":" in address:
            raw = _ipv6(address)
        else:
            raw = bytes([_number(part, 10, 255) for part in address.split(".")])
            if len(raw) != 4:
                raise ValueError
        most = 8 * len(raw)
        return _wide(raw), 128 - most + (_number(bits, 10, most) if slash else most)
    except ValueError:
        raise ValueError(text + " is no network, such as 10.0.0.0/8 or fd00::/8")


def _ipv6(text):
    head, gap, tail = text.partition("::")
    groups = [head.split(":") if head else [], tail.split(":") if tail else []]
    missing = 8 - len(groups[0]) - len(groups[1])
    if missing < 1 if gap else missing:
        raise ValueError
    raw = b""
    for group in groups[0] + ["0"] * missing + groups[1]:
        raw += _number(group, 16, 0xFFFF).to_bytes(2, "big")
    return raw


def _number(text, base, most):
    # int() would take signs, spaces and underscores too.
    for character in text:
        if character not in "0123456789abcdefABCDEF":
            raise ValueError
    number = int(text, base)
    if not 0 <= number <= most or len(text) > 4:
        raise ValueError
    return number
