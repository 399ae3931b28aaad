"""The key=value&key=value lists that IoT Hub puts in topics, URL-encoded (never with "+")."""

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


def unquote(text):
    """The reverse of `quote`. ValueError when `text` is not rightly encoded."""
    parts = text.split("%")
    out = bytearray(parts.pop(0).encode())
    for part in parts:
        if len(part) < 2:
            raise ValueError
        out.append(int(part[:2], 16))
        out.extend(part[2:].encode())
    return out.decode()


def encode(properties):
    """A bag of a dict of strings; a value None gives a bare key."""
    return "&".join(
        [quote(k) if v is None else quote(k) + "=" + quote(v) for k, v in properties.items()]
    )


def decode(text):
    """The dict of a bag: "k" gives None, "k=" an empty string. ValueError when badly encoded."""
    properties = {}
    for pair in text.split("&"):
        if pair:
            key, equals, value = pair.partition("=")
            properties[unquote(key)] = unquote(value) if equals else None
    return properties
