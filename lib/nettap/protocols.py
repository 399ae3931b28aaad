"""Application protocols: by the port of the serving side, and by the first bytes of a connection.

A code fits the five bits that a flow record has for it; 0 is "unknown". Ports are IANA's.
"""

from micropython import const

# Each line is a protocol, in the order of the codes, and its ports. One string: a board keeps it
# in flash, where a dictionary would be in its heap.
_SERVICES = (
    "\nHTTP/80/8080/"
    "\nHTTPS/443/"
    "\nTLS/"
    "\nMQTT/1883/8883/"
    "\nDNS/53/"
    "\nmDNS/5353/"
    "\nNTP/123/"
    "\nSSH/22/"
    "\nTelnet/23/"
    "\nFTP/21/"
    "\nDHCP/67/68/"
    "\nCoAP/5683/5684/"
    "\nSSDP/1900/"
    "\nSNMP/161/162/"
    "\nSyslog/514/"
    "\nLLMNR/5355/"
    "\nSMTP/25/587/"
    "\nModbus/502/"
)
_HTTP = const(1)
_HTTPS = const(2)
_TLS = const(3)
_MQTT = const(4)
_SSH = const(8)

# RFC 9110 section 9 and RFC 5789; a response begins with its version. Four bytes tell them apart.
_HTTP_STARTS = b"GET POSTPUT HEADDELEOPTIPATCTRACHTTP"


def app_name(code):
    """The name of an application protocol's code; None for 0 and for a code that is not known."""
    at = -1
    for _ in range(code):
        at = _SERVICES.find("\n", at + 1)
        if at < 0:
            return None
    return _SERVICES[at + 1 : _SERVICES.find("/", at)] if at >= 0 else None


def by_port(port):
    """The code of the protocol that is registered for a serving side's port, 0 if none is."""
    at = _SERVICES.find("/%d/" % port)
    return _SERVICES.count("\n", 0, at) if at > 0 else 0


def by_use(data, size, app):
    """The code that the first bytes of a TCP connection show; `app`, the port's, if they do not.

    `data` is a string or bytes-like, of which `size` bytes were moved. TLS on a port that has a
    protocol of its own over TLS (443, 8883) is that protocol.
    """
    start = bytes(memoryview(data)[: min(size, 8)])
    if size >= 4 and _HTTP_STARTS.find(start[:4]) % 4 == 0:
        return _HTTP
    if start[:2] == b"\x16\x03":  # a handshake record, RFC 8446 section 5.1
        return app if app == _HTTPS or app == _MQTT else _TLS
    if start[:4] == b"SSH-":  # RFC 4253 section 4.2
        return _SSH
    # CONNECT: a remaining length of one or two bytes, then the protocol's name. MQTT 3.1.1
    # section 3.1; MQIsdp is 3.1.
    if start[:1] == b"\x10" and (b"\0\x04MQ" in start or b"\0\x06MQ" in start):
        return _MQTT
    return app
