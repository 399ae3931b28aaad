"""The key=value&key=value lists (bags) that IoT Hub puts in topics, URL-encoded."""

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~$"


def quote(text):
    """`text` percent-encoded; "$" stays, since it begins the names of system properties."""
    out = bytearray()
    for byte in text.encode():
        if byte in _PLAIN:
            out.append(byte)
        else:
            out.extend(b"%%%02X" % byte)
    return out.decode()


def encode(properties):
    """A bag of a dict of strings; a value None gives a bare key."""
    return "&".join(
        [quote(k) if v is None else quote(k) + "=" + quote(v) for k, v in properties.items()]
    )
