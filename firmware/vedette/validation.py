"""Whether a document of desired properties can be taken, and why not. Imported when one comes.

A document is applied as a whole or not at all.
"""

from micropython import const

from .settings import COLLECTORS, KEYS, Settings, line

DOCUMENT_MAX = const(4096)  # bytes as JSON, about
DEPTH_MAX = const(10)
KEYS_MAX = const(96)  # of all levels
PROBLEMS_MAX = const(16)

_KEY_MAX = const(64)
_MINUTE_MAX = const(44640)  # 31 days


class Refused(ValueError):
    """A value or a document that cannot be taken; the text says what it must be."""


def keys():
    """Yields every key there is."""
    start = 1
    while start < len(KEYS):
        key = KEYS[start : KEYS.find(" ", start)]
        start = KEYS.find("\n", start) + 1
        if key[0] != "*":
            yield key
        else:
            for collector in COLLECTORS:
                if "\n" + collector + key[1:] + " " not in KEYS:
                    yield collector + key[1:]


def _check(value, kind, limits):
    """Raises Refused unless the value is of this kind and within its limits."""
    if kind == "boolean":
        if not isinstance(value, bool):
            raise Refused("must be true or false")
    elif kind == "integer":
        low, high, step = [int(limit) for limit in limits]
        if type(value) is not int or not low <= value <= high or value % step:
            text = "must be an integer from %d to %d" % (low, high)
            raise Refused(text + ", a multiple of %d" % step if step > 1 else text)
    elif kind == "choice":
        if value not in limits:
            raise Refused("must be one of " + ", ".join(limits))
    elif not isinstance(value, str):
        raise Refused("must be a string")
    elif kind == "intervals":
        intervals(value)
    elif kind == "checks":
        _check_checks(value, int(limits[0]))
    else:
        _check_text(value, kind, int(limits[0]))


def _check_text(value, kind, limit):
    if len(value) > limit or min(value or " ") < " ":
        raise Refused("must have at most %d characters, no control characters" % limit)
    if kind == "networks":
        from .networks import parse

        try:
            parse(value)
        except ValueError as reason:
            raise Refused("must be networks separated by commas: %s" % reason)
    numbers = [part for number in value.split(",") for part in number.strip().split(".")]
    if kind == "numbers" and value and not all(part.isdigit() for part in numbers):
        raise Refused('must be check numbers separated by commas, such as "3.3.5,2.2.1.1"')


def _check_checks(text, limit):
    from .baseline import malformed

    if len(text) > limit or min(text.replace("\n", " ") or " ") < " ":
        raise Refused("must have at most %d characters, none of control but newline" % limit)
    problem = malformed(text)
    if problem:
        raise Refused(problem)


def intervals(value):
    """Returns the seconds of High, Medium and Low in "H,M,L" minutes; raises Refused."""
    minutes = [_thousandths(part.strip()) for part in value.split(",")]
    if len(minutes) != 3 or minutes[1] % minutes[0] or minutes[2] % minutes[1]:
        raise Refused('must be "High,Medium,Low", each a multiple of the one before')
    high = (minutes[0] * 60 + 500) // 1000
    return high, high * (minutes[1] // minutes[0]), high * (minutes[2] // minutes[0])


def _thousandths(number):
    # An integer: a float of 32 bits is not exact enough to find multiples.
    whole, _, fraction = number.partition(".")
    value = -1
    if (whole + fraction).isdigit() and len(whole) <= 5 and len(fraction) <= 3:
        value = int(whole or "0") * 1000 + int((fraction + "000")[:3])
    if not 50 <= value <= _MINUTE_MAX * 1000:
        raise Refused("must be minutes from 0.05 to %d, three decimals at most" % _MINUTE_MAX)
    return value


def _measure(value, depth):
    """Returns (bytes as JSON, number of keys), roughly; raises Refused when it is over a limit."""
    if depth > DEPTH_MAX:
        raise Refused("is nested deeper than %d levels" % DEPTH_MAX)
    size = len(value.encode()) + 2 if isinstance(value, str) else 8
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
    if size > DOCUMENT_MAX or count > KEYS_MAX:
        raise Refused("has over %d bytes or %d keys" % (DOCUMENT_MAX, KEYS_MAX))
    return size, count


def changes(settings, values):
    """The keys whose value in force is another one with `values`, which `check` found good."""
    after = Settings(settings.defaults)
    after.apply(values)
    return [key for key in keys() if settings[key] != after[key]]


def check(document):
    """Returns (values to apply, problems, unknown keys) of a document of desired properties.

    `problems` is a list of (key, reason). When it is not empty, nothing may be applied.
    Errors: Refused when the document as a whole is no object or over a limit.
    """
    if not isinstance(document, dict):
        raise Refused("must be an object of settings")
    _measure(document, 1)
    values = {}
    problems = []
    unknown = []
    for key, value in document.items():
        if key.startswith("$"):  # the hub's own: $version, $metadata
            continue
        entry = line(key)
        if entry is None:
            unknown.append(key)
        elif value is not None:
            try:
                _check(value, entry[1], entry[3:])
                values[key] = value
            except Refused as reason:
                problems.append((key, str(reason)))
    return values, problems, unknown


def report(version, problems, unknown, settings):
    """What is reported of a document: rule 6 of the twin's contract, every value in force too."""
    fields = problems + [(key, "unknown key, ignored") for key in unknown]
    more = len(fields) - PROBLEMS_MAX
    fields = [{"key": key[:_KEY_MAX], "reason": reason} for key, reason in fields[:PROBLEMS_MAX]]
    if more > 0:
        fields.append({"key": "", "reason": "and %d more" % more})
    state = {key: settings[key] for key in keys()}
    state["latest_state"] = "failed" if problems else "success"
    state["latest_invalid_fields"] = fields
    state["applied_version"] = version
    return state
