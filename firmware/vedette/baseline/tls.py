"""Checks of whether a board verifies who it talks to."""

from iothub import clock
from micropython import const

from . import listed

CHECKS = """
MPY-*
TLS-3.1|High|verified|The hub's certificate is verified|Give root certificates with ca
TLS-3.2|High|code CERT_ NONE|No code turns verification off|Use CERT_REQUIRED, with roots
TLS-3.3|High|roots|The root certificates are there|Deploy them again
TLS-3.4|High|expiry 90|No root certificate is about to expire|Deploy its successor
"""

_DAY = const(86400)
_SEQUENCE = const(0x30)


def check_verified(facts):
    return "" if facts.agent.client.roots else "there is no root certificate"


def _check_code(facts, *names):
    """The name comes in parts, so that a pack on the board is not found itself."""
    return listed((yield from facts.holding("".join(names).encode(), False)))


def check_roots(facts):
    paths = [root for root in facts.agent.client.roots if isinstance(root, str)]
    return listed([path for path in paths if not facts.exists(path)])


def _content(der, at):
    """Returns (tag, where the content begins, where it ends) of the element at `at`."""
    length = der[at + 1]
    start = at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
        if length > len(der):
            raise ValueError
    return der[at], start, start + length


def _not_after(der):
    """The last day of a certificate (RFC 5280, 4.1), as "YYYY-MM-DD".

    Errors: IndexError or ValueError where it is none in DER form.
    """
    at = 0
    for _ in range(2):  # into the certificate, and what is signed of it
        tag, at, _ = _content(der, at)
        if tag != _SEQUENCE:
            raise ValueError
    tag, _, end = _content(der, at)
    if tag == 0xA0:  # the version, which a first version does not have
        at = end
    for _ in range(3):  # past serial number, signature algorithm, issuer
        at = _content(der, at)[2]
    at = _content(der, at)[1]  # into validity
    tag, start, end = _content(der, _content(der, at)[2])
    text = der[start:end].decode()
    if tag == 0x17:  # UTCTime: two digits of the year
        text = ("19" if text[:2] >= "50" else "20") + text
    if not (len(text) > 8 and text[:8].isdigit()):
        raise ValueError
    return "%s-%s-%s" % (text[:4], text[4:6], text[6:8])


def check_expiry(facts, limit):
    """Passes where each root is good for so many days."""
    if not clock.is_set():
        raise RuntimeError("the clock is not set")
    limit = clock.utc(clock.unix() + int(limit) * _DAY)[:10]
    soon = []
    for root in facts.agent.client.roots:
        name = "a root"
        if isinstance(root, str):
            name, root = root, b"".join(list(facts.pieces(root)))
        try:
            last = _not_after(root)
        except (IndexError, ValueError):
            raise RuntimeError(name + " is no certificate in DER form")
        yield
        if last < limit:
            soon.append("%s ends on %s" % (name, last))
    return listed(soon)
