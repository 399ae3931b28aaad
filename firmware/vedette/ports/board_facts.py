"""What the baseline's packs ask of a board: files, interfaces, registers. Loaded for a run."""

import json
import os
import sys

from micropython import const
from nettap import sockets

from .. import tap
from . import lines, pieces

_DIRECTORY = const(0x4000)  # what os.ilistdir says of one
_FILES_MAX = const(512)
_CONFIG_MAX = const(4096)
_FOLLOWING = const(16)  # bytes after a name that make it a secret
_ENOENT = const(2)
_SECRET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n\\"


class Facts:
    """Paths begin in the folder that the board starts in. Errors: OSError, RuntimeError."""

    PACKS = ("firmware", "network", "tls", "secrets", "hardware", "operation")

    def __init__(self, agent):
        self.agent = agent
        self.platform = "STM32" if sys.platform == "pyboard" else sys.platform.upper()

    def exists(self, path):
        try:
            os.stat(path)
        except OSError as error:
            if error.errno != _ENOENT:
                raise
            return False
        return True

    def version(self):
        """MicroPython's (major, minor, micro, "preview" or "")."""
        return sys.implementation.version

    def chip(self):
        """As the firmware names it, such as "ESP32S3", "STM32F767" or "RP2040"."""
        return sys.implementation._machine.split(" with ")[-1]

    def register(self, address):
        """The 32 bits of a register."""
        import machine

        if not hasattr(machine, "mem32"):
            raise RuntimeError("this firmware has no machine.mem32 to read registers with")
        return machine.mem32[address]

    def wlan(self, number):
        """The station's (0) or the access point's (1) interface; None unless it is active."""
        try:
            import network

            nic = network.WLAN(number)
        except (ImportError, AttributeError):  # a board without Wi-Fi
            return None
        return nic if nic.active() else None

    def listening(self):
        """What the tap knows to listen: (IANA protocol, address or None, port)."""
        if tap.table is None:
            raise RuntimeError("the tap is not in place")
        return sockets.listening()

    def serial(self):
        """Where the REPL can be typed to; of an STM32 what its USB is, such as "VCP+MSC"."""
        if self.platform != "STM32":
            return ["sys.stdin"] if hasattr(sys, "stdin") else []
        import pyb

        return [str(port) for port in (pyb.repl_uart(), pyb.usb_mode()) if port]

    def config(self):
        """The object in config.json; empty where there is none."""
        try:
            with open("config.json") as file:
                document = json.loads(file.read(_CONFIG_MAX))
        except OSError as error:
            if error.errno != _ENOENT:
                raise
            return {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise RuntimeError("config.json holds no object")
        return document

    def deployed(self):
        """Yields (SHA-256 as hexadecimal digits, path) of what `vedette deploy` put here."""
        if not self.exists("deployed.txt"):
            raise RuntimeError("there is no deployed.txt: it was not deployed with vedette deploy")
        names = lines("deployed.txt")
        count = 0
        if next(names).startswith("vedette "):
            for line in names:
                fields = line.split(" ", 2)
                if line and len(fields) != 3 or count == _FILES_MAX:
                    break
                if line:
                    count += 1
                    yield fields[0], fields[2].lstrip("/")
            else:
                if count:
                    return
        raise RuntimeError("deployed.txt is damaged")

    def files(self, code=False):
        """Yields the paths of all files, or those of code. Errors: RuntimeError for too many."""
        folders = [""]
        count = 0
        while folders:
            folder = folders.pop()
            for entry in os.ilistdir(folder or "."):
                path = folder + entry[0]
                if entry[1] == _DIRECTORY:
                    folders.append(path + "/")
                elif not code or path.endswith(".py") or path.endswith(".mpy"):
                    if count == _FILES_MAX:
                        raise RuntimeError("there are more than %d files" % _FILES_MAX)
                    count += 1
                    yield path

    pieces = staticmethod(pieces)

    def holding(self, name, secret):
        """A generator of None that returns the paths of files with these bytes in them.

        Either of code, or with `secret` of all files, where a key must follow.
        """
        found = []
        ahead = _FOLLOWING if secret else 0
        for path in self.files(not secret):
            before = b""
            for piece in self.pieces(path):
                before += piece
                if _holds(before, name, ahead):
                    found.append(path)
                    break
                before = before[-len(name) - ahead :]
                yield
        return found


def _holds(data, name, ahead):
    at = data.find(name)
    while at >= 0:
        after = data[at + len(name) :][:ahead]
        if len(after) == ahead and all([byte in _SECRET for byte in after]):
            return True
        at = data.find(name, at + 1)
    return False
