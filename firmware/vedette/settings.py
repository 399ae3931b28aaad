"""The twin's keys: type, range, default, and the reason when a value is refused.

A document is applied as a whole or not at all. Only values that differ from "missing" are held;
everything else is read from the table below.
"""

from micropython import const

COLLECTORS = (
    "NetworkActivity",
    "Process",
    "SystemInformation",
    "Baseline",
    "ListeningPorts",
    "Heartbeat",
    "Statistics",
)
PRIORITIES = ("High", "Medium", "Low")

DOCUMENT_MAX = const(4096)  # bytes as JSON, about
DEPTH_MAX = const(10)
KEYS_MAX = const(96)  # of all levels
PROBLEMS_MAX = const(16)

_KEY_MAX = const(64)
_TEXT_MAX = const(128)
_LIST_MAX = const(1024)
_MINUTE_MAX = const(44640)  # 31 days


class Refused(ValueError):
    """A value or a document that cannot be taken; the text says what it must be."""


def _boolean(value, _):
    if not isinstance(value, bool):
        raise Refused("must be true or false")


def _integer(value, limits):
    low, high, step = limits
    if type(value) is not int or not low <= value <= high or value % step:
        text = "must be an integer from %d to %d" % (low, high)
        raise Refused(text + ", a multiple of %d" % step if step > 1 else text)


def _choice(value, choices):
    if value not in choices:
        raise Refused("must be one of " + ", ".join(choices))


def _text(value, limit):
    if not isinstance(value, str) or len(value) > limit:
        raise Refused("must be a string of at most %d characters" % limit)
    for letter in value:
        if ord(letter) < 32 or ord(letter) == 127:
            raise Refused("must not hold control characters")


def _check_numbers(value, limit):
    _text(value, limit)
    parts = [part for number in value.split(",") for part in number.strip().split(".")]
    if value and not all(part.isdigit() for part in parts):
        raise Refused('must be check numbers separated by commas, such as "3.3.5,2.2.1.1"')


def _intervals(value, _):
    _text(value, _TEXT_MAX)
    intervals(value)


# key, check, what the check needs, default
_KEYS = (
    ("CollectorsCore_PriorityIntervals", _intervals, None, "30,120,1440"),
    ("NetworkActivity_CacheSize", _integer, (16, 256, 1), 256),
    ("NetworkActivity_OverflowPolicy", _choice, ("DropNew", "DropOldest"), "DropNew"),
    ("NetworkActivity_AgentTraffic", _choice, ("Exclude", "Include"), "Exclude"),
    ("Process_CacheSize", _integer, (16, 256, 1), 256),
    ("Process_PollingInterval", _integer, (50000, 60000000, 1), 100000),
    ("Baseline_GroupsDisabled", _text, _LIST_MAX, ""),
    ("Baseline_ChecksDisabled", _check_numbers, _LIST_MAX, ""),
    ("SystemInformation_HardwareVendor", _text, _TEXT_MAX, ""),
    ("SystemInformation_HardwareModel", _text, _TEXT_MAX, ""),
    ("SystemInformation_HardwareSerialNumber", _text, _TEXT_MAX, ""),
    ("SystemInformation_FirmwareVendor", _text, _TEXT_MAX, ""),
    ("SystemInformation_FirmwareVersion", _text, _TEXT_MAX, ""),
    ("IothubModule_MessageTimeout", _integer, (1, _MINUTE_MAX, 1), 2880),
    ("Message_Format", _choice, ("columns", "objects"), "columns"),
    ("Message_MaxSize", _integer, (4096, 262144, 4096), 65536),
    ("Message_DailyQuota", _integer, (0, 1000000, 1), 0),
)


def _specification(key):
    for row in _KEYS:
        if row[0] == key:
            return row
    collector, _, name = key.partition("_")
    if collector in COLLECTORS:
        if name == "Disabled":
            return (key, _boolean, None, False)
        if name == "MessageFrequency":
            often = collector in ("NetworkActivity", "Process")
            return (key, _choice, PRIORITIES, "Medium" if often else "Low")
    return None


def keys():
    """Every key there is."""
    for row in _KEYS:
        yield row[0]
    for collector in COLLECTORS:
        yield collector + "_Disabled"
        yield collector + "_MessageFrequency"


def intervals(value):
    """Returns the seconds of High, Medium and Low in "H,M,L" minutes; raises Refused."""
    parts = value.split(",")
    if len(parts) != 3:
        raise Refused('must be three numbers of minutes, "High,Medium,Low"')
    minutes = [_thousandths(part.strip()) for part in parts]
    for shorter, longer in ((minutes[0], minutes[1]), (minutes[1], minutes[2])):
        if longer % shorter:
            raise Refused("each interval must be a multiple of the one before")
    high = (minutes[0] * 60 + 500) // 1000
    return high, high * (minutes[1] // minutes[0]), high * (minutes[2] // minutes[0])


def _thousandths(number):
    """A decimal as an integer of thousandths: a float of 32 bits is not exact enough to divide."""
    whole, _, fraction = number.partition(".")
    if not (whole + fraction).isdigit() or len(whole) > 5 or len(fraction) > 3:
        raise Refused("must be minutes such as 30 or 0.05, with three decimals at most")
    value = int(whole or "0") * 1000 + int((fraction + "000")[:3])
    if not 50 <= value <= _MINUTE_MAX * 1000:
        raise Refused("each interval must be from 0.05 to %d minutes" % _MINUTE_MAX)
    return value


def _measure(value, depth):
    """Returns (bytes as JSON, number of keys), roughly; raises Refused when it is over a limit."""
    if depth > DEPTH_MAX:
        raise Refused("is nested deeper than %d levels" % DEPTH_MAX)
    if isinstance(value, str):
        return len(value.encode()) + 2, 0
    size = 8
    count = 0
    if isinstance(value, (dict, list)):
        for item in value:
            if isinstance(value, dict):
                size += len(item.encode()) + 4
                count += 1
                item = value[item]
            inner = _measure(item, depth + 1)
            size += inner[0]
            count += inner[1]
            if size > DOCUMENT_MAX:
                raise Refused("is longer than %d bytes" % DOCUMENT_MAX)
            if count > KEYS_MAX:
                raise Refused("has more than %d keys" % KEYS_MAX)
    return size, count


class Settings:
    """The running configuration: `settings["Message_Format"]`.

    `defaults` holds what the platform says in place of the table's defaults.
    """

    def __init__(self, defaults):
        self._defaults = defaults
        self._chosen = {}

    def __getitem__(self, key):
        if key in self._chosen:
            return self._chosen[key]
        if key in self._defaults:
            return self._defaults[key]
        return _specification(key)[3]

    def effective(self):
        """Every key with the value in force."""
        return {key: self[key] for key in keys()}

    def schedule(self, collector):
        """Returns (priority 0 to 2, its interval, the longest interval), in seconds."""
        priority = PRIORITIES.index(self[collector + "_MessageFrequency"])
        seconds = intervals(self["CollectorsCore_PriorityIntervals"])
        return priority, seconds[priority], seconds[2]

    def changes(self, values):
        """The keys whose value in force is another one with `values`, which `check` found good."""
        after = Settings(self._defaults)
        after.apply(values)
        return [key for key in keys() if self[key] != after[key]]

    def apply(self, values):
        self._chosen = values


def measure(document):
    """Raises Refused when the document as a whole is no object or over a limit."""
    if not isinstance(document, dict):
        raise Refused("must be an object of settings")
    _measure(document, 1)


def check(document):
    """Returns (values to apply, problems, unknown keys) of a measured document.

    `problems` is a list of (key, reason). When it is not empty, nothing may be applied.
    """
    values = {}
    problems = []
    unknown = []
    for key, value in document.items():
        if key.startswith("$"):  # the hub's own: $version, $metadata
            continue
        row = _specification(key)
        if row is None:
            unknown.append(key)
        elif value is not None:
            try:
                row[1](value, row[2])
                values[key] = value
            except Refused as reason:
                problems.append((key, str(reason)))
    return values, problems, unknown


def report(version, problems, unknown, settings):
    """What is reported of a document: rule 6 of the twin's contract."""
    fields = problems + [(key, "unknown key, ignored") for key in unknown]
    more = len(fields) - PROBLEMS_MAX
    fields = [{"key": key[:_KEY_MAX], "reason": reason} for key, reason in fields[:PROBLEMS_MAX]]
    if more > 0:
        fields.append({"key": "", "reason": "and %d more" % more})
    state = settings.effective()
    state["latest_state"] = "failed" if problems else "success"
    state["latest_invalid_fields"] = fields
    state["applied_version"] = version
    return state
