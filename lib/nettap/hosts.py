"""Host names that the application resolved, by address: a bounded memory."""

from micropython import const

_ENTRIES = const(32)
_MAX_NAME = const(64)

_addresses = []
_names = []
_next = 0


def remember(address, name):
    """Keep the name that was resolved to `address` (bytes); the oldest of 32 gives way.

    A literal address is not a name. A name is cut at 64 characters.
    """
    global _next
    if not name or ":" in name or name[-1].isdigit():  # no top-level domain ends in a digit
        return
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
    """The name that was last resolved to `address` (4 or 16 bytes), None if none was."""
    return _names[_addresses.index(address)] if address in _addresses else None


def forget():
    """Empty the memory."""
    _addresses.clear()
    _names.clear()
