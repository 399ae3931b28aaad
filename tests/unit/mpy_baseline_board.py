"""Each check for boards passes, fails and is an error, on boards that stand-ins make up."""
# timeout: 120

import json
import os
import random
import sys

from board_world import (
    HOME,
    KEY,
    PEM,
    Nic,
    Standin,
    World,
    access_point,
    beside,
    certificate,
    deaf,
    deaf_nucleo,
    debugged,
    hidden,
    joined,
    later,
    look,
    nucleo,
    register,
    unnamed,
    unprotected,
    values,
    without_pyb,
)
from vedette import baseline, tap
from vedette.cold import Cold
from vedette.ports import board_facts

LISTENING = Standin(listen_s=True, client_s=None)

# number: what makes it pass, fail and be an error; None: the board as it is
CASES = {
    "1.1": (None, values(version=(1, 25, 1, "")), values(version=None)),
    "1.2": (None, values(version=(1, 27, 0, "")), values(version=None)),
    "1.3": (None, values(version=(1, 28, 0, "preview")), values(version=None)),
    "1.4": (None, later(main_py=b"import app2"), values(deployed=False)),
    "1.5": (None, later(backdoor_mpy=b"M"), values(deployed=b"not\na list\n")),
    "1.6": (None, hidden, values(deployed=False)),
    "2.1": (None, values(webrepl=LISTENING), values(webrepl=Standin(other=1))),
    "2.2": (
        values(webrepl=LISTENING, webrepl_cfg=Standin(PASS="correct9")),
        values(webrepl=LISTENING, webrepl_cfg=Standin(PASS="1234")),
        values(webrepl=LISTENING),
    ),
    "2.3": (
        access_point(ssid="plant-7", security=3),
        access_point(ssid="plant-7", security=0),
        access_point(ssid="plant-7"),
    ),
    "2.4": (
        access_point(ssid="plant-7", security=3),
        access_point(ssid="ESP_A1B2C3", security=3),
        unnamed,
    ),
    "2.5": (None, beside, unnamed),
    "2.6": (joined(password="correct horse"), joined(), None),
    "2.7": (None, values(ports=[(6, None, 23)]), values(tapped=False)),
    "2.8": (None, values(ports=[(17, b"\0\0\0\0", 69)]), values(tapped=False)),
    "3.1": (None, values(roots=[]), values(roots=None)),
    "3.2": (None, later(app_py=b"x" * 1020 + b"CERT_NONE"), values(broken=True)),
    "3.3": (None, values(roots=["other.der"]), values(roots=None)),
    "3.4": (None, values(roots=[certificate(b"270301000000Z")]), values(unix=100)),
    "4.1": (None, later(app_py=KEY.encode()), values(broken=True)),
    "4.2": (None, later(key_pem=PEM.encode()), values(broken=True)),
    "4.3": (joined(), joined(password="correct horse"), later(config_json=b"{")),
    "4.4": (
        later(config_json=b'{"provisioning": {"key": {"nvs": "registration"}}}'),
        later(config_json=b'{"provisioning": {"key": "c2VjcmV0"}}'),
        later(config_json=b"{"),
    ),
    "5.1": (None, register(0x60007038, 0x400000), deaf),
    "5.2": (None, register(0x60007034, 0xC0000), deaf),  # two bits: switched off again
    "5.3": (None, register(0x60007030, 0x30000), deaf),
    "5.4": (None, register(0x60007038, 0x100000), deaf),
    "5.5": (None, register(0x6000703C, 0), deaf),
    "5.6": (nucleo, unprotected, deaf_nucleo),
    "5.7": (nucleo, debugged, deaf_nucleo),
    "5.8": (None, values(stdin=True), without_pyb),
    "5.9": (
        nucleo,
        values(platform="pyboard", pyb=Standin(usb_mode=lambda: "VCP+MSC", repl_uart=bool)),
        without_pyb,
    ),
    "6.1": (None, values(unix=100), values(unix=None)),
    "6.2": (None, values(watchdog=0), values(watchdog=None)),
    "6.3": (None, values(heap=8000), values(heap=None)),
    "6.4": (None, values(blocks=(4096, 4096, 512, 51)), values(blocks=())),
    "6.5": (None, values(cause=3), values(cause=9)),
}


def test_each_check_passes_fails_and_is_an_error():
    found = {None: look(None)}
    for number, changes in CASES.items():
        for change, expected in zip(changes, ("Pass", "Fail", "Error")):
            if change not in found:
                found[change] = look(change)
            result, text = found[change].get(number, ("not run", None))
            assert result == expected, (number, expected, result, text)
            assert bool(text) == (expected != "Pass"), (number, expected)


def test_there_is_a_case_for_each_check():
    numbers = []
    with Cold():
        for name in board_facts.Facts.PACKS:
            pack = getattr(__import__("vedette.baseline." + name).baseline, name)
            benchmark, *checks = pack.CHECKS.strip().split("\n")
            assert benchmark == "MPY-*" and baseline.malformed("\n".join(checks)) == ""
            numbers += [check.split("|")[0].partition("-")[2] for check in checks]
    assert sorted(numbers) == sorted(CASES) and len(numbers) >= 25, numbers


def test_a_check_that_does_not_concern_the_board_is_not_run():
    found = look(None)
    assert not [number for number in ("2.2", "2.3", "2.4", "5.6", "5.7", "5.9") if number in found]
    found = look(nucleo)
    assert not [number for number in found if number[:2] == "5." and number < "5.6"]
    assert not [number for number in ("2.3", "2.4", "2.5", "2.6") if number in found]


def chip(name, **registers):
    """A board with this chip and these registers, by their addresses in hexadecimal."""

    def change(world):
        world.platform = "rp2" if name[:2] == "RP" else "pyboard" if name[:3] == "STM" else "esp32"
        world.machine = "A board with " + name
        world.registers = {int(address[1:], 16): value for address, value in registers.items()}

    return change


def test_the_registers_of_each_chip():
    for name, number, address, passes, fails in (
        ("ESP32", "5.1", "r3ff5a018", (0x10, 0x20), (0xCF,)),
        ("ESP32", "5.2", "r3ff5a000", (0x100000, 0x700000), (0, 0x300000, 0x800FFFFF)),
        ("ESP32", "5.3", "r3ff5a018", (0x40,), (0xB0,)),
        ("ESP32", "5.5", "r3ff5a000", (0x8000000,), (0x70000000,)),
        ("ESP32S3", "5.1", "r60007038", (0x100000,), (0x6FFFFF,)),
        ("ESP32S3", "5.2", "r60007034", (0x40000, 0x1C0000), (0, 0xC0000)),
        ("ESP32S3", "5.3", "r60007030", (0x80000, 0x10000, 0x70000), (0x30000, 0xFF00FFFF)),
        ("ESP32S3", "5.4", "r60007038", (0x400000,), (0x300000,)),
        ("ESP32S3", "5.5", "r6000703c", (0x1, 0x20), (0x1E,)),
        ("ESP32C3", "5.1", "r60008838", (0x100000,), (0x6FFFFF,)),
        ("ESP32C3", "5.2", "r60008834", (0x40000, 0x1C0000), (0, 0xC0000)),
        ("ESP32C3", "5.3", "r60008830", (0x80000, 0x10000, 0x70000), (0x30000, 0xFF00FFFF)),
        ("ESP32C3", "5.4", "r60008830", (0x200,), (0x1FF,)),
        ("ESP32C3", "5.5", "r6000883c", (0x1, 0x20), (0x1E,)),
        ("STM32F407VG", "5.6", "r40023c14", (0x5500, 0xCC00), (0xAA00, 0xFFAAED)),
        ("STM32F767", "5.6", "r40023c14", (0x55FD,), (0xAAFD,)),
        ("STM32H743", "5.6", "r5200201c", (0x5500, 0xCC00), (0xAA00, 0x1016AAF0)),
        ("STM32H743", "5.7", "re000edf0", (0x3000000,), (0x3000001,)),
        ("RP2350", "5.1", "r40120148", (0x1,), (0x6,)),
        ("RP2350", "5.3", "r40120148", (0x4,), (0x3,)),
        ("RP2350", "5.7", "re000edf0", (0x3000000,), (0x3000001,)),
    ):
        for value in passes:
            found = look(chip(name, **{address: value}))[number]
            assert found == ("Pass", None), (name, number, value, found)
        for value in fails:
            found = look(chip(name, **{address: value}))[number]
            assert found[0] == "Fail", (name, number, value, found)
    found = look(chip("RP2040"))
    assert not [number for number in found if number[:2] == "5." and number < "5.8"]


def test_the_bounds_of_checks():
    for change, number, expected in (
        (values(heap=8192), "6.3", "Pass"),
        (values(heap=8191), "6.3", "Fail"),
        (values(blocks=(4096, 4096, 100, 10)), "6.4", "Pass"),
        (values(blocks=(4096, 4096, 100, 9)), "6.4", "Fail"),
        (values(roots=[certificate(b"270415000000Z")]), "3.4", "Pass"),  # 90 days from NOW
        (values(roots=[certificate(b"270414235959Z")]), "3.4", "Fail"),
        (values(ports=[(6, None, 21)]), "2.7", "Fail"),
        (values(ports=[(6, None, 22)]), "2.7", "Pass"),
        (values(version=(1, 26, 0, "")), "1.1", "Pass"),
        (access_point(ssid="ESP32-plant", security=3), "2.4", "Fail"),
        (access_point(ssid="MicroPython-1a2b3c", security=3), "2.4", "Fail"),
        (access_point(ssid="PICO1A2B", security=3), "2.4", "Fail"),
    ):
        assert look(change)[number][0] == expected, (number, expected)


def test_the_security_of_access_points_as_the_drivers_number_it():
    for platform, number, expected in (
        ("esp32", 1, "Fail"),  # WEP
        ("esp32", 2, "Fail"),  # WPA
        ("esp32", 4, "Fail"),  # WPA and WPA2
        ("esp32", 3, "Pass"),  # WPA2
        ("esp32", 7, "Pass"),  # WPA2 and WPA3
        ("rp2", 0, "Fail"),
        ("rp2", 0x200002, "Fail"),  # WPA
        ("rp2", 0x400004, "Pass"),  # WPA2, as a Pico 2 W with 1.29 tells
        ("rp2", 0x1400004, "Pass"),  # WPA2 and WPA3
    ):
        change = values(platform=platform, nics={0: Nic(), 1: Nic(ssid="p", security=number)})
        assert look(change)["2.3"][0] == expected, (platform, number)


def test_a_password_kept_in_nvs_is_judged_and_not_a_plain_one():
    for kept, expected in (
        ({"wifi": b"correct horse"}, "Pass"),
        ({"wifi": b"12345"}, "Fail"),
        ({}, "Fail"),
    ):

        def change(world, kept=kept):
            world.nvs = kept
            world.wifi(ssid="plant-7", password={"nvs": "wifi"})

        found = look(change)
        assert found["2.6"][0] == expected, kept
        assert found["4.3"] == ("Pass", None)


def test_the_version_before_is_no_added_code():
    old = {"v-b/app.mpy": b"M", "v-b/vedette/__init__.mpy": b"M"}
    assert look(lambda world: world.later.update(old))["1.5"] == ("Pass", None)
    new = {"v-a/app2.mpy": b"M"}
    assert look(lambda world: world.later.update(new))["1.5"] == ("Fail", "v-a/app2.mpy")

    def switched(world):  # `current` was made to name it
        world.later.update(old)
        world.place = HOME + "/board%d/v-b/vedette/__init__.mpy" % len(os.listdir(HOME))

    assert look(switched)["1.6"][0] == "Fail"

    def absolute(world):
        world.place = HOME + "/board%d/v-a/vedette/__init__.mpy" % len(os.listdir(HOME))

    assert look(absolute)["1.6"] == ("Pass", None)


def test_what_was_found_is_said():
    found = look(None)
    assert found["2.6"][1].startswith("the application connects")
    found = look(later(main_py=b"", app_py=KEY.encode(), b_py=b"", c_py=b"", d_py=b""))
    assert found["1.4"][1] == "main.py, app.py"
    assert found["1.5"][1].endswith(" and 0 more") is False and found["1.5"][1].count(",") == 2
    assert found["4.1"][1] == "app.py"
    assert "QUJD" not in str(found)
    assert look(values(version=(1, 22, 2, "")))["1.2"][1] == (
        "CVE-2024-8947 until 1.23, CVE-2024-8948 until 1.24, CVE-2026-1998 until 1.28"
    )


def test_a_secret_is_found_across_pieces_and_only_with_a_value():
    for at in (1000, 1008, 1016, 1023, 1024):
        assert look(later(a_py=bytes(at) + KEY.encode()))["4.1"][0] == "Fail", at
    told = b"SharedAccessKey=(your key here, please) "
    assert look(later(a_py=told))["4.1"][0] == "Pass"
    assert look(later(a_py=told + KEY.encode()))["4.1"][0] == "Fail"


def test_a_damaged_list_of_what_was_deployed_is_an_error():
    digest = "0" * 64
    for text in (
        "",
        "vedette 0.1.0\n",
        "0.1.0\n%s 1 main.py\n" % digest,
        "vedette 0.1.0\nmain.py\n",
    ):
        found = look(values(deployed=text.encode() or b"\n"))
        assert found["1.4"] == found["1.5"] == ("Error", "deployed.txt is damaged"), text


def test_what_config_json_says_is_an_error_when_it_cannot_be_read():
    def folder(world):
        del world.files["config.json"]
        world.later["config.json/file"] = b""

    found = look(folder)
    assert found["2.6"][0] == found["4.3"][0] == "Error", found
    assert look(lambda world: world.files.pop("config.json"))["4.3"] == ("Pass", None)


def test_a_damaged_certificate_is_an_error_or_has_a_day():
    with Cold():
        from vedette.baseline import tls
    good = certificate(b"350101000000Z")
    for seed in range(200):
        random.seed(seed)
        bad = bytearray(good)
        for _ in range(1 + seed % 4):
            bad[random.randrange(70)] = random.getrandbits(8)
        for root in (bytes(bad), bytes(bad[: random.randrange(70)])):
            facts = board_facts.Facts(Standin(client=Standin(roots=[root])))
            try:
                for _ in tls.check_expiry(facts, "90"):
                    pass
                last = tls._not_after(root)
                assert len(last) == 10 and last.replace("-", "").isdigit(), last
            except RuntimeError as reason:
                assert str(reason) == "a root is no certificate in DER form"


def test_what_an_stm32_is_at_its_usb():
    def usb(mode, uart=None):
        pyb = Standin(usb_mode=lambda: mode, repl_uart=lambda: uart)
        return values(platform="pyboard", pyb=pyb)

    for change, repl, drive in (
        (usb(None), None, None),
        (usb("MSC"), None, "MSC"),
        (usb("VCP+MSC"), "VCP+MSC", "VCP+MSC"),
        (usb("VCP", "UART(3)"), "UART(3), VCP", None),
    ):
        found = look(change)
        assert (found["5.8"][1], found["5.9"][1]) == (repl, drive)


def test_too_many_files_to_look_at_are_an_error():
    many = {"d/a%d.py" % number: b"" for number in range(520)}
    found = look(lambda world: world.later.update(many))
    assert found["4.1"] == found["1.5"] == ("Error", "there are more than 512 files")


def test_others_have_their_turn_after_each_kilobyte():
    worlds = []
    for size in (0, 200 * 1024):
        world = World()
        world.files["image.bin"] = bytes(size)
        assert world.run()["1.4"] == ("Pass", None)
        worlds.append(world)
    small, large = [world.turns for world in worlds]
    assert large >= small + 3 * 199  # it is hashed once, and looked through for two keys


def test_the_twin_names_the_ports_that_may_listen():
    def custom(text):
        return values(ports=[(6, None, 80), (17, None, 5353)], custom=text)

    assert look(custom(""))["2.8"] == ("Fail", "TCP 80, UDP 5353")
    assert look(custom("Network-2.8||listening 80 5353||"))["2.8"] == ("Pass", None)
    many = values(ports=[(6, None, port) for port in range(81, 86)])
    assert look(many)["2.8"][1] == "TCP 81, TCP 82, TCP 83 and 2 more"


def test_the_twin_reads_no_registers_and_looks_for_no_words():
    def custom(text):
        return lambda world: (
            chip("ESP32", r3ff5a018=0, r3ff00000=7)(world) or setattr(world, "custom", text)
        )

    for name in ("App-9.1", "Hardware-5.3"):
        found = look(custom(name + "|High|register ESP32:3ff00000:f:set|A|B"))
        assert found[name.partition("-")[2]][0] == "Error", found
    for call in ("key network", "code import"):
        assert look(custom("App-9.1|High|%s|A|B" % call))["9.1"][0] == "Error", call
    found = look(custom("Hardware-5.3|Low|||"))
    assert found["5.3"] == ("Fail", "register 3ff5a018 has 0")


def test_sockets_that_listen_are_seen_through_the_tap():
    import nettap.sockets

    tap.table = None
    tap.install()
    board_facts.sockets = nettap.sockets
    socket = sys.modules["socket"]
    listener = socket.socket()
    port = 0
    for number in range(23000, 24000):
        try:
            listener.bind(socket.getaddrinfo("127.0.0.1", number)[0][-1])
            port = number
            break
        except OSError:
            pass
    listener.listen(1)
    board_facts.sys = sys
    listening = board_facts.Facts(None).listening()
    listener.close()
    nettap.sockets.uninstall()
    assert [entry[2] for entry in listening] == [port]


def test_nothing_stays_loaded():
    before = set(sys.modules)
    look(None)
    assert set(sys.modules) == before


def test_a_private_key_in_der_form_is_told_by_config_json():
    for key, found in (
        ("device-key.der", ("Fail", "device-key.der")),
        ({"nvs": "private_key"}, ("Pass", None)),
    ):
        config = json.dumps({"certificate": ["device.der", key]}).encode()
        assert look(later(config_json=config))["4.2"] == found
