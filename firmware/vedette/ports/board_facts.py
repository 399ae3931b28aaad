"""What the baseline's packs ask of a board: files, interfaces, registers. Loaded for a run."""

import gc
import json
import os
import sys

from iothub import clock
from micropython import const
from nettap import sockets

from .. import tap

_DIRECTORY = const(0x4000)  # what os.ilistdir says of one
_DEPTH_MAX = const(8)
_FILES_MAX = const(256)
_CONFIG_MAX = const(4096)
_LINE_MAX = const(256)
_PIECE = const(1024)
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

    def wlan(self, interface):
        """The station's (0) or the access point's (1) interface; None unless it is active."""
        try:
            import network

            nic = network.WLAN(interface)
        except (ImportError, AttributeError):  # a board without Wi-Fi
            return None
        return nic if nic.active() else None

    def listening(self):
        """What the tap knows to listen: (IANA protocol, address or None, port)."""
        if tap.table is None:
            raise RuntimeError("the tap is not in place")
        return sockets.listening()

    def usb_mode(self):
        """What an STM32 is to the computer at its USB, such as "VCP+MSC"; None: nothing."""
        import pyb

        return pyb.usb_mode()

    def consoles(self):
        """Where the REPL can be typed to."""
        if self.platform != "STM32":
            return ["sys.stdin"] if hasattr(sys, "stdin") else []
        import pyb

        uart = pyb.repl_uart()
        found = [str(uart)] if uart else []
        return found + ["USB"] if "VCP" in (pyb.usb_mode() or "") else found

    def reset_cause(self):
        return self.agent.port().reset_cause()

    def storage(self):
        """(total, free) bytes of the file system."""
        return self.agent.port().storage()

    def heap_free(self):
        """Bytes, after a collection of garbage."""
        gc.collect()
        return gc.mem_free()

    def clock_is_set(self):
        return clock.is_set()

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
        try:
            file = open("deployed.txt")
        except OSError:
            raise RuntimeError("there is no deployed.txt: it was not deployed with vedette deploy")
        with file:
            if not file.readline(_LINE_MAX).startswith("vedette "):
                raise RuntimeError("deployed.txt is damaged")
            for _ in range(_FILES_MAX):
                fields = file.readline(_LINE_MAX).strip().split(" ", 2)
                if len(fields) == 3:
                    yield fields[0], fields[2].lstrip("/")
                elif fields != [""]:
                    raise RuntimeError("deployed.txt is damaged")

    def files(self, suffixes=("",), folder="", depth=0):
        """Yields the paths of files whose names end so."""
        for entry in os.ilistdir(folder or "."):
            path = folder + entry[0]
            if entry[1] == _DIRECTORY:
                if depth < _DEPTH_MAX:
                    yield from self.files(suffixes, path + "/", depth + 1)
            elif path.endswith(suffixes):
                yield path

    def pieces(self, path):
        """Yields the content of a file."""
        try:
            with open(path, "rb") as file:
                piece = file.read(_PIECE)
                while piece:
                    yield piece
                    piece = file.read(_PIECE)
        except OSError as error:
            raise OSError(error.errno, path)

    def holding(self, name, suffixes=("",), secret=False):
        """A generator of None that returns the paths of files with these bytes in them.

        With `secret`, what follows them must look like a key.
        """
        found = []
        ahead = _FOLLOWING if secret else 0
        for path in self.files(suffixes):
            before = b""
            for piece in self.pieces(path):
                before += piece
                at = before.find(name)
                after = before[at + len(name) :][:ahead] if at >= 0 else b""
                if at >= 0 and len(after) == ahead and all([byte in _SECRET for byte in after]):
                    found.append(path)
                    break
                before = before[-len(name) - ahead :]
                yield
        return found
