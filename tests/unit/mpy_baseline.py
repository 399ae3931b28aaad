"""The baseline's runner and collector, with packs of a user's in the module path."""

import asyncio
import os
import random
import sys

from hub_client import Client
from vedette import baseline, lifecycle, log, methods, ports
from vedette.agent import Agent
from vedette.cold import Cold, Dense
from vedette.outbox import Outbox
from vedette.settings import Settings
from vedette.store import Store

log.level = 0
sys.path.insert(0, os.getcwd())
_OTHERS = "NetworkActivity Process SystemInformation ListeningPorts Heartbeat Statistics"
_QUIET = {name + "_Disabled": True for name in _OTHERS.split()}
_PACK = '''
CHECKS = """
ACME-*
Pump-1.1|High|good|The pump is good|Mend it
Pump-1.2|High|bad it leaks|The pump is tight|Seal it
Pump-1.3|Low|slow|The pump is slow|Wait
Valve-2.1|Low|absent|There is a valve|Buy one
Valve-2.2|Medium|unknown|The valve is known|Ask
Valve-2.3|Medium|broken|The valve is whole|Replace it
Valve-2.4|Medium|missing|The check is there|Write it
Valve-2.5|Medium|true|The check says what it found|Mend it
"""

def check_good(facts):
    return ""

def check_bad(facts, *words):
    return " ".join(words)

def check_slow(facts):
    for _ in range(5):
        yield
    return "five steps"

def check_absent(facts):
    return None

def check_unknown(facts):
    raise RuntimeError("nobody knows")

def check_true(facts):
    return True

def check_broken(facts):
    raise ValueError("a secret")
'''


class Facts:
    PACKS = ()
    platform = "TEST"


class _Packs:
    """`with _Packs(name=text)`: these modules stand in the module path."""

    def __init__(self, **texts):
        self.texts = texts

    def __enter__(self):
        for name, text in self.texts.items():
            with open(name + ".py", "w") as file:
                file.write(text)

    def __exit__(self, *_):
        for name in self.texts:
            os.remove(name + ".py")


def _start(store, **values):
    ports.facts = lambda agent: Facts()
    client = Client()
    agent = Agent(client, False, True, Store(store), Outbox(16384))
    lifecycle.begin(agent)
    client.push(dict(_QUIET, **values), 1, True)
    return client, agent


async def _results(store, **values):
    client, agent = _start(store, **values)
    await client.until(1)
    found = list(baseline.results(agent, Facts()))
    await agent.stop()
    return found


async def test_a_users_pack_is_found_and_run():
    with _Packs(baseline_acme=_PACK):
        found = await _results("found")
    assert [result for result in found if result] == [
        ("ACME-TEST-Pump-1.1", "Pass", None, "The pump is good", "Mend it", "High"),
        ("ACME-TEST-Pump-1.2", "Fail", "it leaks", "The pump is tight", "Seal it", "High"),
        ("ACME-TEST-Pump-1.3", "Fail", "five steps", "The pump is slow", "Wait", "Low"),
        ("ACME-TEST-Valve-2.2", "Error", "nobody knows", "The valve is known", "Ask", "Medium"),
        (
            "ACME-TEST-Valve-2.3",
            "Error",
            "the check failed with ValueError",
            "The valve is whole",
            "Replace it",
            "Medium",
        ),
        (
            "ACME-TEST-Valve-2.4",
            "Error",
            "there is no function check_missing",
            "The check is there",
            "Write it",
            "Medium",
        ),
        (
            "ACME-TEST-Valve-2.5",
            "Error",
            "the check must return a text or None",
            "The check says what it found",
            "Mend it",
            "Medium",
        ),
    ]
    assert found.count(None) >= 5 + 1
    assert "baseline_acme" not in sys.modules


async def test_the_pack_of_the_documentation_runs():
    with open(os.getenv("ROOT") + "/docs/baseline.md") as file:
        pack = file.read().split("```python\n")[1].split("```")[0]
    for reads, result, error in (
        ("4", "Pass", None),
        ("7", "Fail", "it is 7 bar"),
        ("None", "Error", "the sensor does not answer"),
    ):
        with _Packs(pump="def read():\n    return " + reads, baseline_pump=pack):
            found = await _results("documented")
        sys.modules.pop("pump", None)
        found = [entry for entry in found if entry]
        assert [entry[:3] for entry in found] == [("ACME-1-Pump-1.1", result, error)], found


async def test_a_pack_that_cannot_be_loaded_does_not_stop_the_others():
    short = 'CHECKS = """\nX-*\nPump-1.1|High|good\n"""\n'
    with open("baseline_notes.txt", "w") as file:
        file.write("no pack")
    with _Packs(baseline_a="import nothing_here", baseline_b=short, baseline_c=_PACK):
        found = [result for result in await _results("broken") if result]
    assert len(found) == 9
    assert [result[:2] for result in found[:2]] == [
        ("baseline_a", "Error"),
        ("baseline_b", "Error"),
    ]
    assert "nothing_here" in found[0][2]
    assert "5 fields" in found[1][2]


async def test_groups_checks_and_arguments_come_from_the_twin():
    with _Packs(baseline_acme=_PACK):
        found = await _results(
            "twin",
            Baseline_GroupsDisabled="Valve, Other",
            Baseline_ChecksDisabled="1.3",
            Baseline_CustomChecks="Pump-1.2|Low|bad it drips||\n"
            "Tank-3.1||bad it is empty|Full|Fill it",
        )
    assert [result for result in found if result][1:] == [
        ("ACME-TEST-Pump-1.2", "Fail", "it drips", "The pump is tight", "Seal it", "Low"),
        ("CUSTOM-Tank-3.1", "Fail", "it is empty", "Full", "Fill it", "Medium"),
    ]


async def test_only_what_is_no_pass_is_sent_with_counts_of_the_rest():
    for form in ("objects", "columns"):
        with _Packs(baseline_acme=_PACK):
            client, agent = _start("sent" + form, Message_Format=form)
            await client.until(1)
            await agent.collect("Baseline")
            await agent.stop()
        (event,) = client.named("Baseline")
        assert (event["ChecksRun"], event["ChecksPassed"]) == (7, 1), event
        assert (event["EventType"], event["IsEmpty"]) == ("Security", False)
        payload = event["Payload"]
        if form == "columns":
            payload = [dict(zip(payload["columns"], row)) for row in payload["rows"]]
        assert [
            row["check_id"].rpartition("-")[2] for row in payload
        ] == "1.2 1.3 2.2 2.3 2.4 2.5".split()
        assert payload[0] == {
            "check_id": "ACME-TEST-Pump-1.2",
            "result": "Fail",
            "error": "it leaks",
            "description": "The pump is tight",
            "remediation": "Seal it",
            "severity": "High",
        }


async def test_with_all_passed_the_counts_are_sent():
    with _Packs(baseline_acme=_PACK):
        client, agent = _start("empty", Baseline_ChecksDisabled="1.2,1.3,2.2,2.3,2.4,2.5")
        await client.until(1)
        await agent.collect("Baseline")
        await agent.stop()
    (event,) = client.named("Baseline")
    assert (event["ChecksRun"], event["ChecksPassed"], event["IsEmpty"]) == (1, 1, True)


async def test_many_rows_become_several_events_and_none_is_lost():
    lines = ["Pump-1.%d|High|bad %s|Tight|Seal it" % (n, "x" * (n * 7)) for n in range(1, 61)]
    pack = (
        'CHECKS = """\nACME-*\n%s\n"""\n' % "\n".join(lines)
        + _PACK[_PACK.index("def check_bad") :]
    )
    with _Packs(baseline_acme=pack):
        client, agent = _start("many")
        await client.until(1)
        await agent.collect("Baseline")
        await agent.stop()
    events = client.named("Baseline")
    rows = [row for event in events for row in event["Payload"]["rows"]]
    assert [row[0] for row in rows] == ["ACME-TEST-Pump-1.%d" % n for n in range(1, 61)]
    assert len(rows[59][2]) == 200  # what was found is cut
    assert sum([event["ChecksRun"] for event in events]) == 60 and len(events) > 5
    assert max([len(str(event["Payload"])) for event in events]) < 2000


async def test_others_have_their_turn_after_each_check():
    turns = 0

    async def ticker():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep_ms(0)

    with _Packs(baseline_acme=_PACK):
        client, agent = _start("turns")
        await client.until(1)
        task = asyncio.create_task(ticker())
        await agent.collect("Baseline")
        task.cancel()
        await agent.stop()
    assert turns >= 6 + 5  # the checks, and the steps of the slow one


async def test_one_that_is_cancelled_leaves_nothing_behind():
    with _Packs(baseline_acme=_PACK):
        client, agent = _start("cancelled")
        await client.until(1)
        await asyncio.sleep_ms(20)
        for running in (agent.collect("Baseline"), methods.answer(agent, "getBaseline", None)):
            task = asyncio.create_task(running)
            while not Dense.users:
                await asyncio.sleep_ms(0)
            for _ in range(5):  # into the pack
                await asyncio.sleep_ms(0)
            assert not task.done()
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            assert not Dense.users and not Cold.open
        await agent.stop()


async def test_the_method_returns_passes_too():
    with _Packs(baseline_acme=_PACK):
        client, agent = _start("method")
        await client.until(1)
        status, answer = await methods.answer(agent, "getBaseline", None)
        await agent.stop()
    assert status == 200
    assert answer["rows"][:2] == [
        ("ACME-TEST-Pump-1.1", "Pass", None),
        ("ACME-TEST-Pump-1.2", "Fail", "it leaks"),
    ]
    assert len(answer["rows"]) == 7


class _Agent:
    def __init__(self, values):
        self.settings = Settings({})
        self.settings.apply(values)


def _noise():
    parts = (
        "App",
        "-",
        "1.2",
        "High",
        "|",
        "|",
        "|",
        "|",
        "\n",
        "bad",
        "good x",
        "\xf6",
        "check_",
        " ",
    )
    return "".join([random.choice(parts) for _ in range(random.randrange(14))])


def test_any_text_of_checks_is_refused_or_run():
    taken = 0
    with _Packs(baseline_acme=_PACK):
        for seed in range(2000):
            random.seed(seed)
            text = _noise()
            if seed & 1:  # as much of a check as gets through
                fields = (
                    "App-1.%d" % seed,
                    "",
                    _noise().replace("|", "").replace("\n", ""),
                    "",
                    "",
                )
                text = "|".join(fields) + "\n" + text
            if baseline.malformed(text):
                continue
            taken += 1
            for result in baseline.results(_Agent({"Baseline_CustomChecks": text}), Facts()):
                assert result is None or result[1] in ("Pass", "Fail", "Error"), text
    assert taken > 100
