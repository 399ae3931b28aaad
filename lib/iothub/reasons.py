"""What each code of HubError means and what to do about it. Loaded when one is shown or found."""

import errno

from micropython import const

from . import clock
from .errors import HubError

_VERIFY_FAILED = const(-0x2700)  # MBEDTLS_ERR_X509_CERT_VERIFY_FAILED
_TLS = const(-255)  # mbedTLS's own numbers are below it
_ENETUNREACH = const(101)  # on Linux; `errno` does not name it


def text(code, detail):
    """The str of a HubError: "CODE: what it means, and what to do (detail)"."""
    texts = """
certificate: no given root vouches for the hub, or it is not DER, or expired
clock-not-set: set the clock (NTP) first
closed: not connected
credentials: malformed: copy them again, whole
dns: the name is unknown
host-name: the certificate is for another host
internal: a fault in the client: please report it
memory: the heap is full, or in pieces too small for TLS: connect early
protocol: not MQTT over TLS: is it the right port?
refused: the hub refuses: check id and key, and if the device is enabled
rejected: the hub does not take it
server: a fault of the hub: try again later
stopped: the client was stopped
throttled: too many requests: try again later
timeout: no answer in time
too-large: over the limit
unreachable: nobody answers: check host, port and network
writer: the writer of the message failed, or wrote another length
"""
    at = texts.find("\n" + code + ":") + 1
    found = texts[at : texts.find("\n", at)]
    return found if detail is None else "%s (%s)" % (found, detail)


def of(error, host):
    """The HubError for what socket or TLS raised."""
    said = str(error)
    number = error.errno if isinstance(error, OSError) else _VERIFY_FAILED
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return HubError("memory")
    if number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT, _ENETUNREACH):
        return HubError("unreachable", host)
    if number == _VERIFY_FAILED:
        now = clock.utc(clock.unix())
        if "expected CN" in said:
            return HubError("host-name", host)
        if "future" in said:
            return HubError("clock-not-set", "it says %s, the certificate begins later" % now)
        if "expired" in said:
            return HubError("certificate", "expired at " + now)
        return HubError("certificate", host)
    if isinstance(number, int) and number < _TLS:
        return HubError("protocol", "TLS -0x%x" % -number)
    return HubError("closed", number)
