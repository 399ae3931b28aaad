"""Reads config.json, and says what is wrong with it; never shows a value, which can be secret."""

import io
import json

from micropython import const

from . import log, ports, store

_FILE_MAX = const(4096)
_HOSTNAME_MAX = const(32)
_OUTBOX_MIN = const(2048)  # room for a flow with its event


class ConfigError(ValueError):
    """Says what is wrong in config.json, and what to do."""


def load():
    """Returns what config.json says, checked; nothing, and says why, where it is wrong."""
    try:
        return read("config.json")
    except ConfigError as error:
        log.error("the agent does not run: %s" % error)
        return {}


def read(path):
    """Returns what the file says, checked. Errors: ConfigError."""
    try:
        data = store.read(path, _FILE_MAX)
    except OSError as error:
        raise ConfigError("%s cannot be read (errno %d): create it" % (path, error.errno))
    if data is None:
        raise ConfigError("%s is longer than %d bytes" % (path, _FILE_MAX))
    stream = io.BytesIO(data)
    try:
        document = json.load(stream)
    except ValueError:
        before = data[: stream.tell()].split(b"\n")
        place = (path, len(before), len(before[-1]))
        raise ConfigError("%s is not JSON: look at line %d, column %d" % place)
    try:
        return _identified(_object(document, _KEYS, ("ca",)))
    except ConfigError as reason:
        raise ConfigError("%s: %s" % (path, reason))


def _object(value, keys, required):
    """Returns the object with its values as the functions in `keys` make them."""
    if not isinstance(value, dict):
        raise ConfigError("must be an object, {...}")
    for key in required:
        if key not in value:
            raise ConfigError("%s is missing" % key)
    for key in value:
        if key not in keys:
            raise ConfigError("%s is no key; there are %s" % (key, ", ".join(sorted(keys))))
        try:
            value[key] = keys[key](value[key])
        except ConfigError as reason:
            raise ConfigError("%s %s" % (key, reason))
    return value


def _identified(document):
    if ("connection_string" in document) == ("provisioning" in document):
        raise ConfigError("give either connection_string or provisioning")
    provisioning = document.get("provisioning")
    if provisioning and ("key" in provisioning) == ("certificate" in document):
        raise ConfigError("give either provisioning key or certificate")
    return document


def _string(value):
    if not isinstance(value, str) or not value:
        raise ConfigError("must be a string")
    return value


def _secret(value):
    """A string, or where it is kept: {"nvs": name}, in the non-volatile storage of an ESP32."""
    return str(_kept(value), "utf-8") if isinstance(value, dict) else _string(value)


def _kept(value):
    name = _object(value, {"nvs": _string}, ("nvs",))["nvs"]
    found = ports.load().secret(name)
    if found is None:
        raise ConfigError("is not in this device's NVS under that name: provision it again")
    return found


def _paths(value):
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value or not all([isinstance(v, str) for v in value]):
        raise ConfigError("must be a path, or a list of paths")
    return value


def _pair(value):
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError("must be two paths: of the certificate, and of its private key")
    certificate, key = value
    return [_string(certificate), _kept(key) if isinstance(key, dict) else _string(key)]


def _provisioning(value):
    keys = {"scope": _string, "registration_id": _string, "key": _secret, "host": _server}
    return _object(value, keys, ("scope", "registration_id"))


def _server(value):
    if not _is_server(value):
        raise ConfigError('must be "host" or "host:port"')
    return value


def _servers(value):
    if not isinstance(value, list) or len(value) != 2 or not all([_is_server(v) for v in value]):
        raise ConfigError('must be a list of two servers, each "host" or "host:port"')
    return value


def _is_server(value):
    host, colon, port = value.partition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and (not colon or port.isdigit() and 0 < int(port) < 65536)


def _number(value, least=0):
    if type(value) is not int or not least <= value <= 65535:
        raise ConfigError("must be an integer from %d to 65535" % least)
    return value


def _size(value):
    return _number(value, _OUTBOX_MIN)


def _boolean(value):
    if not isinstance(value, bool):
        raise ConfigError("must be true or false")
    return value


def _pin(value):
    return value if type(value) is int and value >= 0 else _string(value)


def _network(value):
    kind = value.get("type") if isinstance(value, dict) else None
    keys, required = {"type": _string, "country": _country, "hostname": _hostname}, ()
    if kind == "wifi":
        keys.update({"ssid": _string, "password": _secret})
        required = ("ssid",)
    elif kind == "ethernet":
        keys.update({"phy_type": _string, "phy_addr": _number})
        keys.update({pin: _pin for pin in ("mdc", "mdio", "reset", "power", "ref_clk")})
    else:
        raise ConfigError('must be {"type": "wifi", ...} or {"type": "ethernet", ...}')
    return _object(value, keys, required)


def _country(value):
    if not isinstance(value, str) or len(value) != 2:
        raise ConfigError('must be two letters, such as "DE"')
    return value


def _hostname(value):
    if len(_string(value)) > _HOSTNAME_MAX:
        raise ConfigError("must have at most %d characters" % _HOSTNAME_MAX)
    return value


# The arguments of vedette.start that config.json may give, and those of the bring-up.
_KEYS = {
    "connection_string": _secret,
    "certificate": _pair,
    "provisioning": _provisioning,
    "ca": _paths,
    "state": _string,
    "outbox_size": _size,
    "journal": _boolean,
    "watchdog": _number,
    "network": _network,
    "time_servers": _servers,
}
