"""Host names that the application resolved, by address: a bounded memory."""

from micropython import const

_ENTRIES = const(32)
_MAX_NAME = const(64)

_addresses = []
_names = []
_next = 0


def is_name(host):
    """Whether what is resolved is a name, not a literal address or a wildcard."""
    return bool(host) and ":" not in host and not host[-1].isdigit()  # as no top-level domain ends


def remember(address, name):
    """Keep the name that was resolved to `address` (bytes), cut at 64 characters.

    The oldest of 32 gives way.
    """
    global _next
    name = name[:_MAX_NAME]
    if address in _addresses:
        _names[_addresses.index(address)] = name
    elif len(_addresses) < _ENTRIES:
        _addresses.append(address)
        _names.append(name)
    else:
        _addresses[_next] = address
        _names[_next] = name
        _next = (_next + 1) % _ENTRIES


def host_name(address):
    """The name that was last resolved to `address`, None if none was."""
    return _names[_addresses.index(address)] if address in _addresses else None


def forget():
    """Empty the memory."""
    _addresses.clear()
    _names.clear()
