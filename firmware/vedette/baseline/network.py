"""Checks of how a board can be reached: WebREPL, Wi-Fi, listening ports."""

import sys

from . import listed

CHECKS = """
MPY-*
Network-2.1|High|webrepl|WebREPL is off|Remove webrepl from boot.py
Network-2.2|High|webrepl_password 8|WebREPL asks for a password|Choose one of 8 or 9 characters with import webrepl_setup
Network-2.3|High|access_point 0 1 2 4 2097154|The access point is not open|Set security to WPA2 or WPA3 and a key
Network-2.4|Medium|access_point_name ESP_ ESP32 MicroPython- PICO|The access point has a name of its own|Set ssid to a name that does not tell the product
Network-2.5|Medium|bridge|There is no access point beside the station|Call active(False) on the access point
Network-2.6|High|station|Wi-Fi is WPA2 or better|Give network.password in config.json, of 8 characters or more
Network-2.7|High|closed 21 23|There is no FTP or Telnet server|Remove it; use mpremote
Network-2.8|Medium|listening|Only expected ports listen|Stop the server, or name its port for this check in the twin
"""  # noqa: E501


def _webrepl():
    """Whether it listens or is in use."""
    module = sys.modules.get("webrepl")
    return module and (module.listen_s or module.client_s)


def check_webrepl(facts):
    return "it is on" if _webrepl() else ""


def check_webrepl_password(facts, limit):
    if not _webrepl():
        return None
    settings = sys.modules.get("webrepl_cfg")
    if not settings:
        raise RuntimeError("it was started without webrepl_cfg.py: its password is not known")
    return "" if len(settings.PASS) >= int(limit) else "it is shorter than %s" % limit


def check_access_point(facts, *names):
    """Passes where its security is none of these: open, WEP, or WPA in one of its forms."""
    nic = facts.wlan(1)
    if not nic:
        return None
    try:
        security = nic.config("security")
    except ValueError:  # an older driver of the CYW43
        raise RuntimeError("this firmware does not tell how the access point is secured")
    if str(security) in names:
        return "it is below WPA2" if security else "it is open"
    return ""


def check_access_point_name(facts, *names):
    """Passes where it begins with none of these."""
    nic = facts.wlan(1)
    if not nic:
        return None
    ssid = nic.config("ssid")
    return ssid if any([ssid.startswith(name) for name in names]) else ""


def check_bridge(facts):
    nic = facts.wlan(1)
    station = facts.wlan(0)
    if not station or not station.isconnected():
        return None
    return nic.config("ssid") + " is on" if nic else ""


def check_station(facts):
    """With a password, ESP-IDF and the CYW43's driver join networks of WPA2 or better only."""
    station = facts.wlan(0)
    if not station or not station.isconnected():
        return None
    network = facts.config().get("network") or {}
    if network.get("type") != "wifi":
        raise RuntimeError("the application connects: what the network asks for is not known")
    password = network.get("password") or ""
    if isinstance(password, dict):  # {"nvs": name}
        password = facts.agent.port().secret(password["nvs"])
    return "it is open" if not password else "WEP is possible" if len(password) < 8 else ""


def _ports(facts):
    return ["%s %d" % ("TCP" if port[0] == 6 else "UDP", port[2]) for port in facts.listening()]


def check_closed(facts, *names):
    """Passes where none of these ports listens."""
    return listed([port for port in _ports(facts) if port[4:] in names])


def check_listening(facts, *names):
    """Passes where no ports but these listen."""
    return listed([port for port in _ports(facts) if port[4:] not in names])
