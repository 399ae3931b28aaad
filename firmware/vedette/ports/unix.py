"""Linux, through /proc and /sys, on MicroPython's unix port. On macOS most answers are None."""

import os
import sys

from micropython import const

from . import lines

_LINES_MAX = const(512)  # of one file
_NICS_MAX = const(8)
_NAME_MAX = const(64)
_INET = const(2)
_INET6 = const(10)


def _lines(path):
    """Yields the lines of a file; none where it cannot be read."""
    try:
        for _, line in zip(range(_LINES_MAX), lines(path)):
            yield line
    except (OSError, RuntimeError):
        pass


def _line(path):
    return next(_lines(path), "").strip("\0\n ")[:_NAME_MAX]


def defaults():
    """The settings whose default is the platform's to say."""
    dmi = "/sys/class/dmi/id/"
    return {
        "NetworkActivity_OverflowPolicy": "DropOldest",
        "SystemInformation_HardwareVendor": _line(dmi + "sys_vendor"),
        "SystemInformation_HardwareModel": _line(dmi + "product_name")
        or _line("/proc/device-tree/model"),
        "SystemInformation_HardwareSerialNumber": _line(dmi + "product_serial")  # for root only
        or _line("/proc/device-tree/serial-number"),
        "SystemInformation_FirmwareVendor": _line(dmi + "bios_vendor"),
        "SystemInformation_FirmwareVersion": _line(dmi + "bios_version"),
    }


def operating_system():
    """Returns (name, version, platform, architecture)."""
    release = {}
    for line in _lines("/etc/os-release"):
        key, _, value = line.strip().partition("=")
        release[key] = value.strip('"')
    return (
        release.get("NAME"),
        release.get("VERSION_ID") or _line("/proc/sys/kernel/osrelease") or None,
        sys.platform,
        _line("/proc/sys/kernel/arch") or None,
    )


def memory():
    """Returns (total, free) bytes."""
    sizes = {"MemTotal": None, "MemAvailable": None}
    for line in _lines("/proc/meminfo"):
        key, _, value = line.partition(":")
        if key in sizes:
            sizes[key] = int(value.split()[0]) * 1024
    return sizes["MemTotal"], sizes["MemAvailable"]


def storage():
    """Returns (total, free) bytes of the file system that the agent runs on."""
    status = os.statvfs(".")
    return status[1] * status[2], status[1] * status[4]


def hardware():
    """Returns (CPU frequency in Hz, bytes of flash, file system): a host's are not constant."""
    return None, None, None


def uptime():
    """Seconds since the device started."""
    return int(_line("/proc/uptime").split(".")[0] or 0)


def reset_cause():
    """None: a host does not tell."""
    return None


def _address(index, family):
    """An interface's address as text, one that is routed before the rest; None without any."""
    from nettap import netlink

    from ..events import address_text

    best = None
    try:
        for address, at, scope in netlink.first_addresses(index, family):
            if at == index and (not best or scope < best[0]):
                best = scope, address
    except OSError:  # such as on macOS
        pass
    return address_text(best[1]) if best else None


def _nic_type(name, folder):
    for entry in ("wireless", "phy80211"):
        try:
            os.stat(folder + "/" + entry)
            return "WIFI"
        except OSError:
            pass
    if name.startswith(("wwan", "ppp", "rmnet")):
        return "MOBILE"
    return "ETH" if _line(folder + "/type") == "1" else "UNKNOWN"


def nics():
    """Returns a list of {type, name, ipv4_address, ipv6_address, mac}, without the loopback."""
    try:
        names = sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []
    return [_nic(name) for name in names if name != "lo"][:_NICS_MAX]


def _nic(name):
    folder = "/sys/class/net/" + name
    index = int(_line(folder + "/ifindex") or 0)
    return {
        "type": _nic_type(name, folder),
        "name": name,
        "ipv4_address": _address(index, _INET),
        "ipv6_address": _address(index, _INET6),
        "mac": _line(folder + "/address") or None,
    }


def watchdog(seconds):
    """Returns a function that feeds a watchdog, None where there is none."""
    return None


def secret(name):
    """The bytes kept under that name out of the file system; None: a host has no such place."""
    return None


def alone():
    """What `vedette.start` gets where the agent is alone; config.json may say otherwise.

    On Linux it watches the whole system; a simulated board has not the code for that.
    """
    if sys.platform != "linux":
        return {}
    try:
        from .system import ARGUMENTS
    except ImportError:
        return {}
    return ARGUMENTS


def set_clock(unix_seconds):
    """The system keeps its own clock."""


def restart():
    """A supervisor's business."""


def leave(ended):
    """The end of main.py, with this exit code: 0 interrupted, 1 no agent, 2 crashed."""
    sys.exit(ended)
