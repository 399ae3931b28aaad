"""Application protocols: by the port of the serving side, and by the first bytes of a connection.

A code fits the five bits that a flow record has for it; 0 is "unknown". Ports are IANA's.
"""

from micropython import const

_HTTP = const(1)
_HTTPS = const(2)
_TLS = const(3)
_MQTT = const(4)
_DNS = const(5)
_MDNS = const(6)
_NTP = const(7)
_SSH = const(8)
_TELNET = const(9)
_FTP = const(10)
_DHCP = const(11)
_COAP = const(12)
_SSDP = const(13)
_SNMP = const(14)
_SYSLOG = const(15)
_LLMNR = const(16)
_SMTP = const(17)
_MODBUS = const(18)

_NAMES = (
    None,
    "HTTP",
    "HTTPS",
    "TLS",
    "MQTT",
    "DNS",
    "mDNS",
    "NTP",
    "SSH",
    "Telnet",
    "FTP",
    "DHCP",
    "CoAP",
    "SSDP",
    "SNMP",
    "Syslog",
    "LLMNR",
    "SMTP",
    "Modbus",
)

_PORTS = {
    21: _FTP,
    22: _SSH,
    23: _TELNET,
    25: _SMTP,
    53: _DNS,
    67: _DHCP,
    68: _DHCP,
    80: _HTTP,
    123: _NTP,
    161: _SNMP,
    162: _SNMP,
    443: _HTTPS,
    502: _MODBUS,
    514: _SYSLOG,
    587: _SMTP,
    1883: _MQTT,
    1900: _SSDP,
    5353: _MDNS,
    5355: _LLMNR,
    5683: _COAP,
    5684: _COAP,
    8080: _HTTP,
    8883: _MQTT,
}

# RFC 9110 section 9 and RFC 5789; a response begins with its version. Four bytes tell them apart.
_HTTP_STARTS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"TRAC", b"HTTP")


def app_name(code):
    """The name of an application protocol's code; None for 0 and for a code that is not known."""
    return _NAMES[code] if 0 <= code < len(_NAMES) else None


def by_port(port):
    """The code of the protocol that is registered for a serving side's port, 0 if none is."""
    return _PORTS.get(port, 0)


def by_use(data, size, app):
    """The code that the first bytes of a TCP connection show; `app`, the port's, if they do not.

    `data` is a string or bytes-like, of which `size` bytes were moved. TLS on a port that has a
    protocol of its own over TLS (443, 8883) is that protocol.
    """
    start = bytes(memoryview(data)[: min(size, 8)])
    if start[:4] in _HTTP_STARTS:
        return _HTTP
    if start[:2] == b"\x16\x03":  # a handshake record, RFC 8446 section 5.1
        return app if app in (_HTTPS, _MQTT) else _TLS
    if start[:4] == b"SSH-":  # RFC 4253 section 4.2
        return _SSH
    # CONNECT: a remaining length of one or two bytes, then the protocol's name. MQTT 3.1.1
    # section 3.1; MQIsdp is 3.1.
    if start[:1] == b"\x10" and (b"\0\x04MQ" in start or b"\0\x06MQ" in start):
        return _MQTT
    return app
