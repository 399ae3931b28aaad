"""Boards: ESP32, STM32, RP2, through machine and network."""

import gc
import os
import sys
from binascii import hexlify

from iothub import clock
from micropython import const

_NICS = (("WLAN", "WIFI"), ("LAN", "ETH"), ("PPP", "MOBILE"))
_NONE = ("0.0.0.0", "::", "")
_CAUSES = ("PWRON_RESET", "HARD_RESET", "WDT_RESET", "DEEPSLEEP_RESET", "SOFT_RESET")
_MAC_BYTES = const(6)


def defaults():
    """The settings whose default is the platform's to say."""
    machine = sys.implementation._machine  # "<board> with <chip>"
    return {
        "NetworkActivity_OverflowPolicy": "DropNew",
        "SystemInformation_HardwareVendor": sys.platform,
        "SystemInformation_HardwareModel": machine,
        "SystemInformation_HardwareSerialNumber": _serial(),
        "SystemInformation_FirmwareVendor": "MicroPython",
        "SystemInformation_FirmwareVersion": sys.version,
    }


def _serial():
    import machine

    return hexlify(machine.unique_id()).decode() if hasattr(machine, "unique_id") else ""


def operating_system():
    """Returns (name, version, platform, architecture)."""
    version = ".".join(str(part) for part in sys.implementation.version[:3])
    return "MicroPython", version, sys.platform, _architecture()


def _architecture():
    # Which native code the build loads: bits 2 to 5 of its .mpy flags.
    names = ("", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp")
    names += ("xtensa", "xtensawin", "rv32imc", "rv64imc")
    number = getattr(sys.implementation, "_mpy", 0) >> 10 & 0xF
    return names[number] if 0 < number < len(names) else None


def memory():
    """Returns (total, free) bytes of MicroPython's heap."""
    free = gc.mem_free()
    return free + gc.mem_alloc(), free


def storage():
    """Returns (total, free) bytes of the root file system."""
    status = os.statvfs("/")
    return status[1] * status[2], status[1] * status[3]


def uptime():
    """Seconds since the device started."""
    return clock.uptime()


def reset_cause():
    """Returns the cause as machine names it, such as "WDT_RESET"."""
    import machine

    cause = machine.reset_cause()
    for name in _CAUSES:
        if getattr(machine, name, None) == cause:
            return name
    return None


def nics():
    """Returns a list of {type, name, ipv4_address, ipv6_address, mac} of the interfaces in use."""
    import network

    found = []
    for kind, label in _NICS:
        try:
            nic = getattr(network, kind)()
            if nic.active():
                found.append(_nic(nic, kind, label))
        except (AttributeError, OSError, TypeError, ValueError):
            pass  # this board has no such interface
    return found


def _nic(nic, kind, label):
    mac = nic.config("mac") if label != "MOBILE" else b""
    return {
        "type": label,
        "name": kind,
        "ipv4_address": _known(nic.ifconfig()[0]),
        "ipv6_address": _known(_ipv6(nic)),
        "mac": hexlify(mac, ":").decode() if len(mac) == _MAC_BYTES else None,
    }


def _ipv6(nic):
    try:
        address = nic.ipconfig("addr6")
    except (AttributeError, OSError, TypeError, ValueError):
        return ""
    return address[0][0] if address else ""


def _known(address):
    return None if address in _NONE else address


def watchdog(seconds):
    """Returns a function that feeds a new watchdog, which cannot be stopped again."""
    import machine

    return machine.WDT(timeout=1000 * seconds).feed
