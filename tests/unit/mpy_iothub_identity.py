"""iothub.clock, bag and credentials."""

import random
import sys
import time

from iothub import Credentials, HubError, clock, keys
from iothub.decoding import decode
from iothub.encoding import encode

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TEXT = "HostName=myhub.azure-devices.net;DeviceId=dev-1;SharedAccessKey=" + KEY


def refused(text):
    try:
        Credentials.parse(text)
    except HubError as e:
        assert e.code == "credentials", e
        return str(e)
    raise AssertionError("accepted: " + text)


def fresh_clock(fake_time):
    """iothub.clock as imported on a board whose `time` is `fake_time`."""
    name = "iothub.clock"
    real, sys.modules["time"] = sys.modules.get("time"), fake_time
    kept = sys.modules.pop(name)
    package_attribute = sys.modules["iothub"].clock
    try:
        __import__(name)
        return sys.modules[name]
    finally:
        sys.modules[name] = kept
        sys.modules["iothub"].clock = package_attribute
        if real is None:
            del sys.modules["time"]
        else:
            sys.modules["time"] = real


class Board:
    """`time` of a board that counts from 2000, with ticks that wrap after 2^30 ms."""

    def __init__(self):
        self.ms = 0
        self.seconds = 0

    def gmtime(self, seconds):
        return time.gmtime(seconds + 946684800)

    def time(self):
        return self.seconds

    def ticks_ms(self):
        return self.ms & 0x3FFFFFFF

    def ticks_diff(self, a, b):
        return ((a - b + 0x20000000) & 0x3FFFFFFF) - 0x20000000


def test_clock_counts_from_1970_on_every_board():
    board = Board()
    board_clock = fresh_clock(board)
    assert not board_clock.is_set()
    board.seconds = 1795489445 - 946684800
    assert board_clock.unix() == 1795489445
    assert board_clock.is_set()
    assert board_clock.utc(1795489445) == "2026-11-24T03:04:05Z"
    assert clock.utc(1795489445) == "2026-11-24T03:04:05Z"
    assert abs(clock.unix() - time.time()) < 2


def test_uptime_does_not_wrap_and_loses_nothing():
    board = Board()
    board.ms = 123
    board_clock = fresh_clock(board)
    start = board_clock.uptime()
    passed = 0
    rng = random
    rng.seed(3)
    while passed < 60 * 86400 * 1000:  # the ticks wrap after 12.4 days
        step = rng.randrange(86400 * 1000)
        board.ms += step
        passed += step
        assert board_clock.uptime() - start == passed // 1000


def test_uptime_goes_on_by_the_second():
    before = clock.uptime()
    time.sleep_ms(1100)
    assert 1 <= clock.uptime() - before <= 2


def test_bag_golden():
    for key, value, text in (
        ("$.ct", "application/json", "$.ct=application%2Fjson"),
        ("a b", "c+d&e=f", "a%20b=c%2Bd%26e%3Df"),
        ("k", None, "k"),
        ("empty", "", "empty="),
        ("ü", "#", "%C3%BC=%23"),
    ):
        assert encode({key: value}) == text
    assert sorted(encode({"a": "1", "b": "2"}).split("&")) == ["a=1", "b=2"]
    assert decode("a%20b=c%2Bd%26e%3Df&k&empty=") == {"a b": "c+d&e=f", "k": None, "empty": ""}
    assert decode("") == {}
    assert decode("$rid=7&$version=12") == {"$rid": "7", "$version": "12"}


def test_bag_gives_back_what_it_was_given():
    rng = random
    rng.seed(4)
    alphabet = "abcXYZ019-._~$%&=+#/ \t\x00ä€😀?"
    for _ in range(300):
        properties = {}
        for _ in range(rng.randrange(4)):
            key = "".join([rng.choice(alphabet) for _ in range(1 + rng.randrange(9))])
            value = "".join([rng.choice(alphabet) for _ in range(rng.randrange(9))])
            properties[key] = None if rng.randrange(5) == 0 else value
        text = encode(properties)
        assert all(c not in text for c in "+# /\x00"), text
        assert decode(text) == properties, text


def test_bag_refuses_what_is_badly_encoded():
    for text in ("a=%", "a=%4", "a=%zz", "%=1"):
        try:
            decode(text)
        except ValueError:
            continue
        raise AssertionError(text)


def test_hmac_vectors():
    # RFC 4231, cases 1, 2 and 6 (a key longer than a block)
    for key, message, start in (
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db3853"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f",
        ),
    ):
        digest = keys.hmac_sha256(key, message)
        assert len(digest) == 32
        assert digest[:8].hex() == start


def test_token_golden():
    # Computed with CPython's hmac.
    real, clock.unix = clock.unix, lambda: 1700000000
    try:
        module = Credentials(
            "myhub.azure-devices.net", "dev-1", keys.decode_key(KEY), module_id="mod 1"
        )
        assert keys.token(module, 3600) == (
            "SharedAccessSignature "
            "sr=myhub.azure-devices.net%2Fdevices%2Fdev-1%2Fmodules%2Fmod%201"
            "&sig=BABi86A5OGuYmFUCi5Km%2Bo7e%2BgRHStkli4MzR9%2BtVkU%3D&se=1700003600"
        )
        module.policy = "registration"
        assert keys.token(module, 3600).endswith("&se=1700003600&skn=registration")
    finally:
        clock.unix = real


def test_device_and_module():
    device = Credentials.parse(TEXT)
    assert (device.host, device.port) == ("myhub.azure-devices.net", 8883)
    assert device.client_id == "dev-1"
    assert device.user == "myhub.azure-devices.net/dev-1/?api-version=2021-04-12"
    assert device.path == "devices/dev-1"
    token = keys.token(device, 60)
    assert token.startswith(
        "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev-1&sig="
    )
    assert 55 <= int(token.split("&se=")[1]) - clock.unix() <= 60
    module = Credentials.parse(
        "HostName=localhost:18883;DeviceId=d;ModuleId=m;SharedAccessKey=" + KEY
    )
    assert (module.host, module.port) == ("localhost", 18883)
    assert module.client_id == "d/m"
    assert module.user == "localhost/d/m/?api-version=2021-04-12"
    assert module.path == "devices/d/modules/m"
    assert "sr=localhost%2Fdevices%2Fd%2Fmodules%2Fm&" in keys.token(module, 60)


def test_a_connection_string_for_a_certificate():
    text = "HostName=h;DeviceId=d;ModuleId=m;x509=true"
    module = Credentials.parse(text, ("certificate.der", "key.der"))
    assert module.certificate == ("certificate.der", "key.der") and module.client_id == "d/m"
    assert keys.token(module, 60) is None
    assert "SharedAccessKey" in refused(text)
    for wrong in (TEXT, "HostName=h;DeviceId=d"):
        try:
            Credentials.parse(wrong, ("certificate.der", "key.der"))
        except HubError as e:
            assert "x509" in str(e)
        else:
            raise AssertionError(wrong)


def test_a_bad_connection_string_says_what_is_wrong_and_keeps_the_key():
    assert "no HostName" in refused("DeviceId=d;SharedAccessKey=" + KEY)
    assert "no DeviceId" in refused("HostName=h;SharedAccessKey=" + KEY)
    assert "no SharedAccessKey" in refused("HostName=h;DeviceId=d")
    assert "port" in refused("HostName=h:0;DeviceId=d;SharedAccessKey=" + KEY)
    assert "port" in refused("HostName=h:x;DeviceId=d;SharedAccessKey=" + KEY)
    assert "1024" in refused(TEXT + ";" * 1000)
    for text in (
        TEXT + "x",
        TEXT[:-3],
        TEXT.replace("SharedAccessKey=", "SharedAccesKey="),
        TEXT.replace("SharedAccessKey=", ""),
        TEXT + ";Gateway=1",
    ):
        assert KEY[:20] not in refused(text)
    assert KEY[:20] not in repr(Credentials.parse(TEXT))


def test_random_connection_strings_are_accepted_or_refused_with_a_reason():
    rng = random
    rng.seed(5)
    for _ in range(2000):
        text = bytearray(TEXT.encode())
        for _ in range(1 + rng.randrange(4)):
            at = rng.randrange(len(text))
            if rng.randrange(2):
                text[at] = 32 + rng.randrange(95)
            else:
                text = text[:at] + text[at + 1 + rng.randrange(6) :]
        try:
            Credentials.parse(text.decode())
        except HubError as e:
            assert e.code == "credentials" and len(str(e)) < 120
