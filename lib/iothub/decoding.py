"""The reverse of encoding.py. Loaded by what reads topics."""


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


def decode(text):
    """The dict of a bag: "k" gives None, "k=" an empty string. ValueError when badly encoded."""
    properties = {}
    for pair in text.split("&"):
        if pair:
            key, equals, value = pair.partition("=")
            properties[unquote(key)] = unquote(value) if equals else None
    return properties
