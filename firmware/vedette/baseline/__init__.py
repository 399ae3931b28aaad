"""The baseline: runs the checks of packs, one after the other, and says what each has found.

A pack is a module with a text `CHECKS`: in its first line how the check ids begin ("*" stands for
the platform), then a line a check:

    Group-number|severity|function argument…|description|remediation

`function` is the module's `check_function(facts, argument…)`. It returns "" when all is well, a
text that says what it found when not, and None where the check does not concern this device. One
that takes more than some milliseconds is a generator, which yields where others have their turn.
It raises OSError, or RuntimeError with the reason, when it cannot tell. A pack whose checks are
not for every device has a function `concerns(facts)`, too. A function that could harm or tell
secrets with other arguments is named `_check_function`: only the pack's own text may call it.

Packs are those of the platform, `vedette.baseline.*`, and the user's: each `baseline_*` in the
module path. The twin adds checks and changes them: docs/baseline.md.
"""

import asyncio
import os
import sys

from micropython import const

from ..cold import Cold

COLUMNS = "check_id,result,error,description,remediation,severity"

_PASS = const("Pass")
_FAIL = const("Fail")
_ERROR = const("Error")
_SEVERITY = const("Medium")  # where the twin gives none
_FIELDS = const(5)
_UNCHANGED = ("",) * _FIELDS
_TEXT_MAX = const(200)  # characters, of what was found
_LISTED_MAX = const(3)


def listed(names):
    """A few of the names, and how many more there are; "" without any."""
    more = len(names) - _LISTED_MAX
    return ", ".join(names[:_LISTED_MAX]) + (" and %d more" % more if more > 0 else "")


def records(text):
    """Yields the fields of each line that is not empty."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        if end < 0:
            end = len(text)
        if end > start:
            yield text[start:end].split("|")
        start = end + 1


def malformed(text):
    """Says what is wrong with a text of checks; "" when it can be taken."""
    count = 0
    for fields in records(text):
        count += 1
        group, _, number = fields[0].partition("-")
        if len(fields) != _FIELDS:
            return "must have 5 fields, separated by |, in line %d" % count
        if not group.isalpha() or not all([part.isdigit() for part in number.split(".")]):
            return 'must begin line %d with a group and a number, such as "Network-2.8"' % count
        if fields[1] and fields[1] not in ("High", "Medium", "Low"):
            return "must have severity High, Medium or Low in line %d" % count
    return ""


def results(agent, facts):
    """Yields a tuple of `COLUMNS` for each check that was run, passes too, and often None.

    After each the caller gives other tasks their turn. `facts` is what the packs ask.
    """
    custom = {fields[0]: fields for fields in records(agent.settings["Baseline_CustomChecks"])}
    groups = _names(agent, "Baseline_GroupsDisabled")
    numbers = _names(agent, "Baseline_ChecksDisabled")

    def chosen(fields):
        group, _, number = fields[0].partition("-")
        return group not in groups and number not in numbers

    for name in _packs(facts):
        yield
        with Cold():
            try:
                pack = _load(name)
                concerned = not hasattr(pack, "concerns") or pack.concerns(facts)
            except Exception as error:  # whatever a user's pack does: the others are run
                text = "the pack cannot be loaded: %s %s" % (type(error).__name__, error)
                yield name, _ERROR, text[:_TEXT_MAX], "", "", _SEVERITY
                continue
            yield
            checks = records(pack.CHECKS)
            prefix = next(checks)[0].replace("*", facts.platform) + "-"
            for fields in checks if concerned else ():
                changes = custom.pop(fields[0], _UNCHANGED)
                fields = [change or field for change, field in zip(changes, fields)]
                if chosen(fields):
                    yield from _result(pack, facts, fields, prefix, not changes[2])
            for fields in list(custom.values()):
                if _function(pack, fields, False):
                    del custom[fields[0]]
                    if chosen(fields):
                        yield from _result(pack, facts, fields, "CUSTOM-", False)
    for fields in custom.values():
        if chosen(fields):
            yield from _result(None, facts, fields, "CUSTOM-", False)


async def each(agent, facts, take):
    """Awaits `take(result)` for each result; before it other tasks have their turn."""
    found = results(agent, facts)
    try:
        for result in found:
            await asyncio.sleep_ms(0)
            if result:
                await take(result)
    finally:
        found.close()  # cancelled, it would keep its pack


def _names(agent, key):
    return [name.strip() for name in agent.settings[key].split(",")]


def _packs(facts):
    for name in facts.PACKS:
        yield "vedette.baseline." + name
    found = set()
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # such as ".frozen", which is no folder
            continue
        for name in names:
            stem, _, suffix = name.partition(".")
            if stem.startswith("baseline_") and suffix in ("py", "mpy"):
                found.add(stem)
    yield from sorted(found)


def _load(name):
    __import__(name)
    pack = sys.modules[name]
    if not name.startswith("vedette."):  # the user's; of ours, Cold takes care
        del sys.modules[name]
        problem = malformed(pack.CHECKS.strip().partition("\n")[2])
        if problem:
            raise ValueError("CHECKS " + problem)
    return pack


def _function(pack, fields, own):
    """Returns what a check calls, or None; private functions only where it is the pack's own."""
    name = "check_" + fields[2].split(" ")[0]
    return getattr(pack, name, None) or own and getattr(pack, "_" + name, None)


def _result(pack, facts, fields, prefix, own):
    """Runs one check; yields None while it runs, then its result unless it is not concerned."""
    name, severity, call, description, remediation = fields
    try:
        function = _function(pack, fields, own)
        if not function:
            raise RuntimeError("there is no function check_" + call.split(" ")[0])
        found = function(facts, *call.split(" ")[1:])
        if hasattr(found, "send"):
            found = yield from found
        if not (found is None or isinstance(found, str)):
            raise RuntimeError("the check must return a text or None")
    except (OSError, RuntimeError) as reason:
        result, found = _ERROR, str(reason)
    except Exception as error:  # a pack may be the user's; the text could show what it read
        result, found = _ERROR, "the check failed with " + type(error).__name__
    else:
        if found is None:
            return
        result = _FAIL if found else _PASS
    severity = severity or _SEVERITY
    yield prefix + name, result, found[:_TEXT_MAX] or None, description, remediation, severity
