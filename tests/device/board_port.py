"""Device side of test_bringup_boards.py: what the port for boards says, on a stand-in for a board.

Reads JSON from stdin: what the board's modules return. Prints JSON: what the port makes of it, and
what it has done to the board in `calls`.
"""

import asyncio
import json
import sys
from binascii import unhexlify

from vedette.settings import Settings


class Nic:
    """An interface as MicroPython's: what it has not raises ValueError."""

    def __init__(self, values):
        self.values = values

    def active(self):
        return self.values["active"]

    def ifconfig(self):
        return tuple(self.values["ifconfig"])

    def ipconfig(self, name):
        if name not in self.values:
            raise ValueError("unexpected key")
        return [tuple(entry) for entry in self.values[name]]

    def config(self, name):
        if name != "mac":
            raise ValueError("unknown config param")
        return unhexlify(self.values["mac"].replace(":", ""))


class Module:
    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)


class Agent:
    """As much of the agent as a collector asks for."""

    objects = True
    since = {"SystemInformation": 0}

    def __init__(self, port):
        self.settings = Settings(port.defaults())
        self.port = lambda: port

    async def deliver(self, name, pieces, seconds):
        self.event = json.loads("{" + "".join(pieces) + "}")


def network(values):
    """The module `network`: a class without arguments that it needs raises TypeError."""

    def maker(names):
        def make(*arguments):
            name = names[arguments[0]] if arguments else names[0]
            if name is None:
                raise TypeError("'phy_addr' argument required")
            return Nic(values[name])

        return make

    module = Module()
    for name, made in values.pop("classes").items():
        setattr(module, name, maker(made))
    for number, name in enumerate(("STA_IF", "AP_IF")):
        if name in values:
            setattr(module, name, number)
    return module


def machine(values, calls):
    class Watchdog:
        def __init__(self, timeout):
            if timeout > values["watchdog_ms"]:
                raise ValueError("timeout exceeds %d" % values["watchdog_ms"])
            calls.append("WDT %d" % timeout)

        def feed(self):
            calls.append("feed")

    class Clock:
        def datetime(self, fields):
            calls.append(list(fields))

    module = Module(WDT=Watchdog, RTC=Clock)
    module.unique_id = lambda: unhexlify(values["unique_id"])
    frequency = values["freq"]
    module.freq = lambda: tuple(frequency) if isinstance(frequency, list) else frequency
    module.reset_cause = lambda: values["reset_cause"]
    module.reset = lambda: calls.append("reset")
    module.mem16 = {int(address, 16): number for address, number in values["mem16"].items()}
    for name, number in values["causes"].items():
        setattr(module, name, number)
    return module


def main(values):
    calls = []
    sys.modules["machine"] = machine(values, calls)
    sys.modules["network"] = network(values["network"])
    sys.modules["vfs"] = Module(
        mount=lambda: [(type(kind, (), {})(), path) for path, kind in values["mounts"]]
    )
    if "flash_size" in values:
        sys.modules["esp"] = Module(flash_size=lambda: values["flash_size"])
    if "nvs" in values:
        sys.modules["esp32"] = Module(NVS=lambda name: Nvs(values["nvs"][name]))
    from vedette.ports import board

    implementation = Module(
        version=tuple(values["version"]), _machine=values["machine"], _mpy=values["mpy"]
    )
    board.sys = Module(
        platform=values["platform"], version=values["banner"], implementation=implementation
    )
    board.os = Module(
        getcwd=lambda: values["cwd"], statvfs=lambda path: tuple(values["statvfs"][path])
    )
    from vedette.collectors import system_information

    agent = Agent(board)
    asyncio.run(system_information.Collector(agent).collect())
    result = {
        "overflow_policy": board.defaults()["NetworkActivity_OverflowPolicy"],
        "event": agent.event,
        "reset_causes": {},
        "secrets": [
            kept and kept.decode() for kept in map(board.secret, ("connection", "nothing"))
        ],
    }
    for number in range(7):
        values["reset_cause"] = number
        result["reset_causes"][str(number)] = board.reset_cause()
    board.watchdog(8)()
    try:
        board.watchdog(40)
    except ValueError as error:
        calls.append(str(error))
    board.set_clock(1900000000)
    board.leave(1)
    board.restart()()
    result["calls"] = calls
    print(json.dumps(result))


class Nvs:
    def __init__(self, kept):
        self.kept = kept

    def get_blob(self, name, buffer):
        if name not in self.kept:
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")
        value = self.kept[name].encode()
        buffer[: len(value)] = value
        return len(value)


main(json.load(sys.stdin))
