"""The twin's keys: ranges, reasons, whole or not at all, limits."""

import json
import random

from vedette import validation
from vedette.settings import Settings
from vedette.validation import changes, check, keys, report


def _effective(running):
    return {key: running[key] for key in keys()}


def _reason(key, value):
    values, problems, unknown = check({key: value})
    assert not unknown
    assert (key in values) != bool(problems), (key, value)
    return problems[0][1] if problems else None


def test_every_key_of_the_contract_has_its_default():
    running = Settings({})
    expected = {
        "CollectorsCore_PriorityIntervals": "30,120,1440",
        "NetworkActivity_CacheSize": 256,
        "NetworkActivity_OverflowPolicy": "DropNew",
        "NetworkActivity_AgentTraffic": "Exclude",
        "Process_CacheSize": 256,
        "Process_PollingInterval": 100000,
        "Baseline_GroupsDisabled": "",
        "Baseline_ChecksDisabled": "",
        "Baseline_CustomChecks": "",
        "Alerts_AllowedAddresses": "",
        "Alerts_FlowsLimit": 200,
        "Alerts_PortsLimit": 8,
        "Alerts_UnknownPort": False,
        "Alerts_BytesOutLimit": 0,
        "Alerts_FailedLoginsLimit": 0,
        "Alerts_ChangedFile": False,
        "IothubModule_MessageTimeout": 2880,
        "Message_Format": "columns",
        "Message_MaxSize": 65536,
        "Message_DailyQuota": 0,
    }
    for name in ("Vendor", "Model", "SerialNumber"):
        expected["SystemInformation_Hardware" + name] = ""
    expected["SystemInformation_FirmwareVendor"] = ""
    expected["SystemInformation_FirmwareVersion"] = ""
    for collector in (
        "NetworkActivity Process SystemInformation Baseline ListeningPorts Heartbeat Statistics"
    ).split():
        expected[collector + "_Disabled"] = False
        often = collector in ("NetworkActivity", "Process")
        expected[collector + "_MessageFrequency"] = "Medium" if often else "Low"
    assert _effective(running) == expected, _effective(running)


def test_platform_defaults_give_way_to_the_twin():
    running = Settings({"NetworkActivity_OverflowPolicy": "DropOldest"})
    assert running["NetworkActivity_OverflowPolicy"] == "DropOldest"
    running.apply({"NetworkActivity_OverflowPolicy": "DropNew"})
    assert running["NetworkActivity_OverflowPolicy"] == "DropNew"
    running.apply({})
    assert running["NetworkActivity_OverflowPolicy"] == "DropOldest"


def test_ranges_hold_at_their_ends():
    for key, low, high, step in (
        ("NetworkActivity_CacheSize", 16, 256, 1),
        ("Process_CacheSize", 16, 256, 1),
        ("Process_PollingInterval", 50000, 60000000, 1),
        ("IothubModule_MessageTimeout", 1, 44640, 1),
        ("Message_MaxSize", 4096, 262144, 4096),
        ("Message_DailyQuota", 0, 1000000, 1),
    ):
        for good in (low, low + step, high):
            assert _reason(key, good) is None, (key, good)
        for bad in (low - 1, high + step, float(low), str(low), True, [low], {}):
            assert str(low) in _reason(key, bad), (key, bad)
    assert "multiple of 4096" in _reason("Message_MaxSize", 5000)


def test_booleans_and_choices_are_taken_exactly():
    assert _reason("Heartbeat_Disabled", True) is None
    for bad in (1, 0, "true", [], {}):
        assert _reason("Heartbeat_Disabled", bad) == "must be true or false"
    assert _reason("Statistics_MessageFrequency", "High") is None
    for bad in ("high", "", 1, True, ["High"], {"High": 1}):
        assert _reason("Statistics_MessageFrequency", bad) == "must be one of High, Medium, Low"
    assert _reason("Message_Format", "objects") is None
    assert "columns, objects" in _reason("Message_Format", "xml")


def test_intervals_are_exact_multiples():
    for text, seconds in (
        ("30,120,1440", (1800, 7200, 86400)),
        ("0.05,0.1,0.2", (3, 6, 12)),
        (" 0.05 , 0.05 , 0.05 ", (3, 3, 3)),
        ("1.5,3,45", (90, 180, 2700)),
        (".1,10,100", (6, 600, 6000)),
    ):
        assert validation.intervals(text) == seconds, (text, validation.intervals(text))
        assert _reason("CollectorsCore_PriorityIntervals", text) is None
    for text, part in (
        ("30,120", "each a multiple"),
        ("30,120,1440,1", "each a multiple"),
        ("30,100,1440", "each a multiple"),
        ("0.05,0.12,1", "each a multiple"),
        ("0.049,1,1", "0.05"),
        ("0,1,1", "0.05"),
        ("-1,1,1", "three decimals"),
        ("a,b,c", "three decimals"),
        ("1e3,1e3,1e3", "three decimals"),
        ("1.0.0,1,1", "three decimals"),
        ("99999,99999,99999", "44640"),
        ("", "three decimals"),
    ):
        assert part in _reason("CollectorsCore_PriorityIntervals", text), text
    assert "string" in _reason("CollectorsCore_PriorityIntervals", 30)


def test_texts_have_a_length_and_no_control_characters():
    assert _reason("SystemInformation_HardwareModel", "Größe €") is None
    assert "128" in _reason("SystemInformation_HardwareModel", "x" * 129)
    assert "control" in _reason("SystemInformation_HardwareModel", "a\nb")
    assert _reason("Baseline_ChecksDisabled", "3.3.5, 2.2.1.1") is None
    assert _reason("Baseline_ChecksDisabled", "") is None
    for bad in ("3..5", "a", "1,,2", "1.", ","):
        assert "check numbers" in _reason("Baseline_ChecksDisabled", bad), bad


def test_checks_of_ones_own_are_told_what_is_wrong_with_them():
    good = "App-1.1|High|file /etc/app.key 600|The key is private|chmod 600 it"
    good += "\nNetwork-2.8||listening 80||"
    for text in ("", good, good + "\n"):
        assert _reason("Baseline_CustomChecks", text) is None, text
    for text, reason in (
        ("App-1.1|High|file", "5 fields, separated by |, in line 1"),
        (good + "\n1.1|High|file|a|b", "must begin line 3 with a group"),
        ("App-1.x|High|file|a|b", "must begin line 1 with a group"),
        ("App-1.1|Urgent|file|a|b", "severity High, Medium or Low in line 1"),
        ("App-1.1|High|file|a\0|b", "2048 characters, none of control"),
        ("App-1.1|High|file|a|" + "b" * 2048, "2048 characters"),
        (["App-1.1|High|file|a|b"], "must be a string"),
    ):
        assert reason in _reason("Baseline_CustomChecks", text), (text, reason)


def test_networks_are_cidr():
    assert _reason("Alerts_AllowedAddresses", "10.0.0.0/8, fd00::/8") is None
    assert "10.0.0/8 is no network" in _reason("Alerts_AllowedAddresses", "10.0.0/8")
    assert "1024" in _reason("Alerts_AllowedAddresses", "10.0.0.0/8," * 100)


def test_null_means_the_default_and_unknown_keys_are_told():
    values, problems, unknown = check(
        {"Message_Format": None, "Heartbeat_Colour": 1, "$version": 4, "Nothing": {"a": 1}}
    )
    assert values == {} and problems == []
    assert sorted(unknown) == ["Heartbeat_Colour", "Nothing"]
    for odd in ("*_Disabled", "Message_Format choice", "Message_Format\nMessage_Format", "_", ""):
        assert check({odd: True}) == ({}, [], [odd]), odd


def test_changes_are_those_of_the_value_in_force():
    running = Settings({})
    assert changes(running, {"Message_Format": "columns"}) == []
    running.apply({"Message_Format": "objects"})
    assert changes(running, {}) == ["Message_Format"]
    assert changes(running, {"Message_Format": "objects", "Process_CacheSize": 16}) == [
        "Process_CacheSize"
    ]


def _refused(document):
    try:
        check(document)
    except validation.Refused as reason:
        return str(reason)
    return None


def test_documents_over_a_limit_are_refused_as_a_whole():
    assert _refused({"a": 1}) is None
    assert "object" in _refused(5)
    assert "object" in _refused([1])
    assert "keys" in _refused({"key%d" % i: 0 for i in range(97)})
    assert _refused({"key%d" % i: 0 for i in range(96)}) is None
    assert "bytes" in _refused({"a": "x" * 4096})
    assert "bytes" in _refused({"a": ["x" * 100] * 50})
    deep = {}
    for _ in range(9):
        deep = {"a": deep}
    assert _refused(deep) is None
    assert "deeper" in _refused({"a": deep})


def test_report_says_state_reasons_version_and_effective_values():
    running = Settings({})
    values, problems, unknown = check({"Message_MaxSize": 1, "Colour": 2})
    reported = report(7, problems, unknown, running)
    assert reported["latest_state"] == "failed"
    assert reported["applied_version"] == 7
    assert reported["Message_MaxSize"] == 65536
    fields = {field["key"]: field["reason"] for field in reported["latest_invalid_fields"]}
    assert "4096" in fields["Message_MaxSize"] and "unknown" in fields["Colour"]
    assert report(8, [], ["Colour"], running)["latest_state"] == "success"


def test_report_is_bounded_whatever_the_document():
    unknown = ["k" * 900 for _ in range(96)]
    fields = report(1, [], unknown, Settings({}))["latest_invalid_fields"]
    assert len(fields) == 17 and fields[16]["reason"] == "and 80 more"
    assert len(json.dumps(fields)) < 3000


def _anything(depth):
    kind = random.randrange(8 if depth else 6)
    if kind == 6:
        return [_anything(depth - 1) for _ in range(random.randrange(4))]
    if kind == 7:
        return {_word(): _anything(depth - 1) for _ in range(random.randrange(4))}
    return (None, True, random.getrandbits(20) - 1000, 0.5, _word(), "30,120,1440")[kind]


def _word():
    return "".join(chr(random.choice((35, 44, 46, 65, 97, 200, 8364))) for _ in range(5))


def test_random_documents_never_raise_and_never_half_apply():
    all_keys = list(keys())
    for seed in range(3000):
        random.seed(seed)
        names = [random.choice(all_keys) if random.getrandbits(1) else _word() for _ in range(6)]
        document = {name: _anything(3) for name in names}
        values, problems, unknown = check(document)
        refused = [key for key, _ in problems]
        for key, value in document.items():
            places = (key in values, key in refused, key in unknown, value is None)
            assert sum(places) == 1 or (key in unknown and value is None), (document, key)
        for _, reason in problems:
            assert reason.startswith(("must", "each")), reason
        running = Settings({})
        running.apply(values)  # what was found good is good
        again, problems, _ = check(_effective(running))
        assert not problems and again == _effective(running)
