"""Boards: ESP32, STM32, RP2, through machine and network."""

import gc
import os
import sys
from binascii import hexlify

from iothub import clock
from micropython import const

# class, its argument, what it is
_NICS = (
    ("WLAN", "STA_IF", "WIFI"),
    ("WLAN", "AP_IF", "WIFI"),
    ("LAN", None, "ETH"),
    ("PPP", None, "MOBILE"),
)
_MAKERS = {"esp32": "Espressif", "pyboard": "STMicroelectronics", "rp2": "Raspberry Pi"}
_NONE = ("0.0.0.0", "::", "")
_CAUSES = ("PWRON_RESET", "HARD_RESET", "WDT_RESET", "DEEPSLEEP_RESET", "SOFT_RESET")
_MAC_BYTES = const(6)
# Where an STM32 has the size of its flash, in KB: ST's FLASHSIZE_BASE. Elsewhere it could crash.
_FLASH_KB = {"STM32F76": 0x1FF0F442, "STM32H74": 0x1FF1E880}
_SECRET_MAX = const(2560)  # a private key of RSA 4096 is as long


def defaults():
    """The settings whose default is the platform's to say."""
    machine = sys.implementation._machine  # "<board> with <chip>"
    return {
        "NetworkActivity_OverflowPolicy": "DropNew",
        "SystemInformation_HardwareVendor": _MAKERS.get(sys.platform, sys.platform),
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
    """Returns (total, free) bytes of the file system that the agent runs on."""
    status = os.statvfs(".")  # "/" is none on STM32, where flash is /flash
    return status[1] * status[2], status[1] * status[3]


def hardware():
    """Returns (CPU frequency in Hz, bytes of flash, file system that the agent runs on)."""
    import machine

    frequency = machine.freq()  # STM32 has several, the CPU's first
    try:
        import esp

        flash = esp.flash_size()
    except ImportError:
        address = _FLASH_KB.get(sys.implementation._machine.split(" with ")[-1][:8])
        flash = machine.mem16[address] << 10 if address else None
    return frequency if isinstance(frequency, int) else frequency[0], flash, _file_system()


def _file_system():
    where = os.getcwd()
    try:
        import vfs

        # Of the mounts that hold it, the innermost.
        return max(
            [(path, type(fs).__name__) for fs, path in vfs.mount() if where.startswith(path)]
        )[1]
    except (ImportError, TypeError):  # before MicroPython 1.25 mounts are not told
        return None


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
    """Returns a list of {type, name, ipv4_address, ipv6_address, mac} of the interfaces in use.

    The names are MicroPython's, which say Wi-Fi's mode: STA_IF, AP_IF, LAN, PPP.
    """
    import network

    found = []
    for kind, mode, label in _NICS:
        try:
            make = getattr(network, kind)
            nic = make(getattr(network, mode)) if mode else make()
            if nic.active():
                found.append(_nic(nic, mode or kind, label))
        except (AttributeError, OSError, TypeError, ValueError):
            pass  # this board has no such interface
    return found


def _nic(nic, name, label):
    mac = nic.config("mac") if label != "MOBILE" else b""
    return {
        "type": label,
        "name": name,
        "ipv4_address": _known(nic.ifconfig()[0]),
        "ipv6_address": _known(_ipv6(nic)),
        "mac": hexlify(mac, ":").decode() if len(mac) == _MAC_BYTES else None,
    }


def _ipv6(nic):
    """The interface's first address; a link-local one only where there is no other."""
    try:
        addresses = [entry[0].lower() for entry in nic.ipconfig("addr6")]
    except (AttributeError, OSError, TypeError, ValueError):
        return ""
    routed = [address for address in addresses if not address.startswith("fe80:")]
    return (routed + addresses + [""])[0]


def _known(address):
    return None if address in _NONE else address


def watchdog(seconds):
    """Returns a function that feeds a new watchdog, which cannot be stopped again.

    Errors: ValueError where the board's cannot wait so long.
    """
    import machine

    try:
        return machine.WDT(timeout=1000 * seconds).feed
    except ValueError as error:
        raise ValueError("watchdog: this board cannot wait %d s: %s" % (seconds, error))


def secret(name):
    """The bytes kept under that name in NVS, which no file shows; None where there are none."""
    try:
        import esp32

        kept = bytearray(_SECRET_MAX)
        size = esp32.NVS("vedette").get_blob(name, kept)
        return bytes(kept[:size])
    except (ImportError, OSError):
        return None


def alone():
    """What `vedette.start` gets where the agent is alone; config.json may say otherwise."""
    return {}


def set_clock(unix_seconds):
    """Sets the board's clock, which is the wall clock."""
    import machine

    year, month, day, hour, minute, second, weekday = clock.gmtime(unix_seconds)[:7]
    machine.RTC().datetime((year, month, day, weekday + 1, hour, minute, second, 0))


def restart():
    """Returns what starts the board anew, None where something else does.

    Asked for early: when the event loop has failed, there may be no heap left to find it.
    """
    import machine

    return machine.reset


def leave(_ended):
    """The end of main.py. The REPL follows; after sys.exit() a board would run main.py again."""
