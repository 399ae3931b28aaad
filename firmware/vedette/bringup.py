"""Brings up the network that config.json describes. One attempt a call, each of them bounded."""

import asyncio
import time

from micropython import const

from . import log

_ATTEMPT_MS = const(30000)
_POLL_MS = const(250)
_PAUSE_MS = const(60000)  # without a cable, STM32's active() holds the loop for 10 s
_PINS = ("mdc", "mdio", "reset", "power", "ref_clk")
_TROUBLES = ("NO_AP_FOUND", "WRONG_PASSWORD", "CONNECT_FAIL", "HANDSHAKE_TIMEOUT")


async def connect(config, nic):
    """Tries to bring the interface up within 30 s; returns it, or None where that cannot be tried.

    `nic` is what an earlier call returned, None at first.
    """
    try:
        import network

        if nic is None:
            nic = _make(network, config)
            nic.active(True)
        if config["type"] == "wifi" and not nic.isconnected():
            nic.disconnect()  # it may still be trying, and refuse another attempt
            nic.connect(config["ssid"], config.get("password") or None)
    except (AttributeError, ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        log.error("network: cannot be brought up: %s" % error)
        await asyncio.sleep_ms(_PAUSE_MS)
        return None
    if await _up(nic):
        log.info("network: up, %s" % nic.ifconfig()[0])
    else:
        log.warning("network: not up after 30 s%s" % _trouble(network, nic))
    return nic


async def _up(nic):
    began = time.ticks_ms()
    while time.ticks_diff(time.ticks_ms(), began) < _ATTEMPT_MS:
        if nic.isconnected():
            return True
        await asyncio.sleep_ms(_POLL_MS)
    return False


def _make(network, config):
    if "country" in config:
        network.country(config["country"])
    if "hostname" in config:
        network.hostname(config["hostname"])
    if config["type"] == "wifi":
        return network.WLAN(network.STA_IF)
    return network.LAN(**_lan_arguments(network, config))


def _lan_arguments(network, config):
    """What LAN() takes: pins by their numbers or names, the PHY by its constant's."""
    arguments = {}
    for key, value in config.items():
        if key in _PINS:
            import machine

            arguments[key] = machine.Pin(value)
        elif key == "phy_type":
            name = "PHY_" + value
            # On STM32 the constants are the class's.
            owner = network if hasattr(network, name) else network.LAN
            arguments[key] = getattr(owner, name)
        elif key == "phy_addr":
            arguments[key] = value
    return arguments


def _trouble(network, nic):
    """What the interface says of itself, where it has a word for it."""
    try:
        status = nic.status()
    except (AttributeError, OSError):
        return ""
    for name in _TROUBLES:
        if getattr(network, "STAT_" + name, None) == status:
            return ": " + name
    return ""
