"""Boards that stand-ins make up, for the checks of the baseline.

Values are those that the ports return: an ESP32-S3 and others with Wi-Fi, a Pico 2 W, a
NUCLEO_F767ZI. The files are real ones, in a folder of each board.
"""

import hashlib
import json
import os
import sys
from binascii import hexlify

import vedette
from iothub import clock
from vedette import baseline, tap
from vedette.ports import board, board_facts

HOME = os.getcwd()
NOW = 1800000000  # 2027-01-15
KEY = "SharedAccessKey=" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
PEM = "-----BEGIN EC PRIVATE KEY-----\n" + "TUhjQ0FRRUVJQmtnNExWV005bnV3TlNr" * 2


class Standin:
    """An object with these attributes."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


class Nic:
    """network.WLAN: what `config` is asked for and not given is a ValueError, as on the boards."""

    def __init__(self, **settings):
        self.settings = settings
        self.connected = True

    def active(self):
        return bool(self.settings)

    def isconnected(self):
        return self.connected

    def config(self, name):
        if name not in self.settings:
            raise ValueError("unknown config param")
        return self.settings[name]


def der(tag, *contents):
    content = b"".join(contents)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
    return bytes([tag]) + length + content


def certificate(not_after):
    """As much of an X.509 certificate as its validity needs, and a tail of 300 bytes."""
    validity = der(0x30, der(0x17, b"200101000000Z"), der(0x17, not_after))
    name = der(0x30, der(0x31, der(0x30, der(6, b"\x55\4\3"), der(12, b"root"))))
    signed = (
        der(0xA0, der(2, b"\2")),
        der(2, b"\1"),
        der(0x30, der(6, b"\x2a")),
        name,
        validity,
        bytes(300),
    )
    return der(0x30, der(0x30, *signed))


class World:
    """A board with nothing to complain of; a test changes it before it looks."""

    def __init__(self):
        self.platform = "esp32"
        self.machine = "Generic ESP32S3 module with ESP32S3"
        self.version = (1, 28, 0, "")
        self.registers = {  # eFuses: all burnt
            0x60007030: 0x80000,
            0x60007034: 0x40000,
            0x60007038: 0x500000,
            0x6000703C: 0x20,
        }
        self.mem32 = True
        self.cause = 1
        self.nics = {0: Nic(ssid="plant-7"), 1: Nic()}
        self.webrepl = None
        self.webrepl_cfg = None
        self.pyb = Standin(usb_mode=lambda: None, repl_uart=lambda: None)
        self.ports = []
        self.tapped = True
        self.stdin = False
        self.heap = 60000
        self.blocks = (4096, 4096, 512, 256)
        self.unix = NOW
        self.watchdog = 8
        self.place = "v-a/vedette/__init__.mpy"
        self.custom = ""
        self.files = {
            "main.py": b"import app",
            "app.py": b"context.verify_mode = tls.CERT_REQUIRED",
            "root.der": certificate(b"350101000000Z"),
            "v-a/vedette/__init__.mpy": b"M\6" + bytes(3000),
            "config.json": b'{"ca": "root.der"}',
        }
        self.deployed = True
        self.later = {}  # written after the deployment
        self.roots = ["root.der"]
        self.nvs = {}
        self.broken = False  # the file system lists a file that cannot be opened

    def wifi(self, **network):
        network["type"] = "wifi"
        self.later["config.json"] = json.dumps({"network": network}).encode()

    def _write(self, files):
        for path, content in files.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                try:
                    os.mkdir("/".join(parts[:depth]))
                except OSError:
                    pass
            with open(path, "wb") as file:
                file.write(content)

    def _flash(self):
        self._write(self.files)
        if self.deployed is True:
            with open("deployed.txt", "w") as file:
                file.write("vedette 0.1.0\n")
                for path, content in self.files.items():
                    if path != "config.json":
                        digest = hexlify(hashlib.sha256(content).digest()).decode()
                        file.write("%s %d %s\n" % (digest, len(content), path))
        elif self.deployed:
            self._write({"deployed.txt": self.deployed})
        self._write(self.later)

    def _standins(self):
        implementation = Standin(version=self.version, _machine=self.machine)
        board_facts.sys = Standin(platform=self.platform, implementation=implementation)
        if self.stdin:
            board_facts.sys.stdin = True
        board_facts.sockets = Standin(listening=lambda: self.ports)
        board_facts.os = Standin(ilistdir=self._ilistdir, stat=os.stat)
        board.os = Standin(statvfs=lambda path: self.blocks)
        tap.table = True if self.tapped else None
        clock.time = Standin(time=lambda: self.unix, gmtime=GMTIME)
        clock.unix = lambda: self.unix
        vedette.__file__ = self.place
        machine = Standin(reset_cause=lambda: self.cause, PWRON_RESET=1, WDT_RESET=3)
        if self.mem32:
            machine.mem32 = self.registers
        network = Standin(WLAN=lambda interface: self.nics[interface])
        return {
            "esp32": Standin(NVS=lambda name: Standin(get_blob=self._blob)),
            "machine": machine,
            "network": network if self.nics is not None else None,
            "pyb": self.pyb,
            "webrepl": self.webrepl,
            "webrepl_cfg": self.webrepl_cfg,
        }

    def _blob(self, name, kept):
        if name not in self.nvs:
            raise OSError(-0x1102)  # ESP_ERR_NVS_NOT_FOUND
        kept[: len(self.nvs[name])] = self.nvs[name]
        return len(self.nvs[name])

    def _ilistdir(self, folder):
        yield from os.ilistdir(folder)
        if self.broken:
            yield "broken.py", 0x8000, 0, 100

    def agent(self):
        settings = {"Baseline_GroupsDisabled": "", "Baseline_ChecksDisabled": ""}
        settings["Baseline_CustomChecks"] = self.custom
        agent = Standin(settings=settings, client=Standin(), port=lambda: board)
        agent.heap_low_water = self.heap
        if self.roots is not None:
            agent.client.roots = self.roots
        if self.watchdog is not None:
            agent.watchdog = self.watchdog
        return agent

    def run(self):
        """Returns {check number: (result, error)}; `turns` is how often others had theirs."""
        folder = HOME + "/board%d" % len(os.listdir(HOME))
        os.mkdir(folder)
        os.chdir(folder)
        modules = self._standins()
        try:
            self._flash()
            for name, module in modules.items():
                sys.modules.pop(name, None)
                if module:
                    sys.modules[name] = module
            facts = board_facts.Facts(self.agent())
            found = list(baseline.results(facts.agent, facts))
        finally:
            os.chdir(HOME)
            for name in modules:
                sys.modules.pop(name, None)
        self.turns = found.count(None)
        return {result[0].rpartition("-")[2]: result[1:3] for result in found if result}


GMTIME = clock.time.gmtime


def nucleo(world):
    world.platform = "pyboard"
    world.machine = "NUCLEO-F767ZI with STM32F767"
    world.registers = {0x40023C14: 0xFFFF55FD, 0xE000EDF0: 0x03000000}
    world.nics = None


def debugged(world):
    nucleo(world)
    world.registers[0xE000EDF0] = 0x03000001


def unprotected(world):
    nucleo(world)
    world.registers[0x40023C14] = 0xFFFFAAFD


def deaf(world):
    world.mem32 = False


def deaf_nucleo(world):
    nucleo(world)
    world.mem32 = False


def without_pyb(world):
    nucleo(world)
    world.pyb = None


def register(address, value):
    def change(world):
        world.registers[address] = value

    return change


def values(**changes):
    def change(world):
        for name, value in changes.items():
            setattr(world, name, value)

    return change


def later(**files):
    def change(world):
        for name, content in files.items():
            world.later[name.replace("_", ".")] = content

    return change


def access_point(**settings):
    return values(nics={0: Nic(), 1: Nic(**settings)})


def joined(**network):
    def change(world):
        world.wifi(**network)

    return change


def beside(world):
    world.nics[1] = Nic(ssid="plant-7", security=3)


def hidden(world):
    world.place = "v-a/copy/v-a/vedette/__init__.mpy"
    world.later[world.place] = b"M"


def unnamed(world):
    world.nics[1] = Nic(security=3)


def look(change):
    world = World()
    if change:
        change(world)
    return world.run()
