"""The hub's query language, as far as a registry of this size needs it:

    SELECT * FROM devices [WHERE condition]

with comparisons of a twin's paths (`deviceId`, `status`, `tags.a.b`, `properties.reported.c`) with
literals, `IS_DEFINED(path)`, AND, OR, NOT and brackets. A path that is not there compares false.
Source: Microsoft's "IoT Hub query language for device and module twins".
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any

from vedette_tools.hub.errors import RequestError

TEXT_MAX = 4096
DEPTH_MAX = 32

Json = dict[str, Any]
Condition = Callable[[Json], bool]

_TOKEN = re.compile(
    r"""\s*(?: (?P<string> '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
             | (?P<number> -?\d+(?:\.\d+)?(?:[eE][+-]?\d+)? )
             | (?P<word> \$?[A-Za-z_][\w\-]*(?:\.\$?[A-Za-z_][\w\-]*)* )
             | (?P<sign> <= | >= | != | <> | [=<>()*] )
             | (?P<end> $ ) )""",
    re.X,
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}
_MISSING = object()


class Query:
    """What a twin has to be like."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    @classmethod
    def parse(cls, text: Any) -> Query:
        """Errors: RequestError (400)."""
        if not isinstance(text, str) or len(text) > TEXT_MAX:
            raise RequestError(400, f"query has to be a string of up to {TEXT_MAX} characters")
        return cls(_Parser(text).query())

    def matches(self, twin: Json) -> bool:
        return self._condition(twin)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._advance()

    def query(self) -> Condition:
        for expected in ("SELECT", "*", "FROM", "DEVICES"):
            if not self._takes(expected):
                raise self._error("only SELECT * FROM devices is answered here")
        condition = self._any() if self._takes("WHERE") else lambda _twin: True
        if self._kind != "end":
            raise self._error("AND, OR or the end is expected")
        return condition

    def _any(self) -> Condition:
        conditions = [self._all()]
        while self._takes("OR"):
            conditions.append(self._all())
        return lambda twin: any(condition(twin) for condition in conditions)

    def _all(self) -> Condition:
        conditions = [self._one()]
        while self._takes("AND"):
            conditions.append(self._one())
        return lambda twin: all(condition(twin) for condition in conditions)

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error("the condition is nested too deeply")
        try:
            return self._negation() or self._bracket() or self._defined() or self._comparison()
        finally:
            self._depth -= 1

    def _negation(self) -> Condition | None:
        if not self._takes("NOT"):
            return None
        condition = self._one()
        return lambda twin: not condition(twin)

    def _bracket(self) -> Condition | None:
        if not self._takes("("):
            return None
        condition = self._any()
        self._expect(")")
        return condition

    def _defined(self) -> Condition | None:
        if not self._takes("IS_DEFINED"):
            return None
        self._expect("(")
        path = self._path()
        self._expect(")")
        return lambda twin: _value(twin, path) is not _MISSING

    def _comparison(self) -> Condition:
        path = self._path()
        compare = _COMPARISONS.get(self._token)
        if compare is None:
            raise self._error("a comparison is expected: " + " ".join(_COMPARISONS))
        self._advance()
        wanted = self._literal()

        def condition(twin: Json) -> bool:
            value = _value(twin, path)
            if value is _MISSING or not _comparable(value, wanted, compare):
                return False
            return compare(value, wanted)

        return condition

    def _path(self) -> list[str]:
        if self._kind != "word":
            raise self._error("a path is expected, such as deviceId or tags.room")
        path = self._token.split(".")
        self._advance()
        return path

    def _literal(self) -> Any:
        kind, token = self._kind, self._token
        self._advance()
        if kind == "string":
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if kind == "number":
            return json.loads(token)
        if kind == "word" and token.upper() in _CONSTANTS:
            return _CONSTANTS[token.upper()]
        raise self._error("a string, a number, true, false or null is expected")

    def _expect(self, token: str) -> None:
        if not self._takes(token):
            raise self._error(f"{token!r} is expected")

    def _takes(self, token: str) -> bool:
        """True when the next token is this word (in any case) or sign; it is passed then."""
        if self._kind not in ("word", "sign") or self._token.upper() != token:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self._begin = self._at
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._error("that cannot be read")
        self._kind = str(match.lastgroup)
        self._token = match[self._kind]
        self._at = match.end()

    def _error(self, why: str) -> RequestError:
        return RequestError(400, f"the query, at character {self._begin + 1}: {why}")


def _value(twin: Json, path: list[str]) -> Any:
    value: Any = twin
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _comparable(value: Any, wanted: Any, compare: Callable[[Any, Any], bool]) -> bool:
    """True where two values have an order, or only have to be told apart. A boolean is no number,
    as it is to Python."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return isinstance(value, bool) and isinstance(wanted, bool)
    if compare in (operator.eq, operator.ne):
        return True
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    return numbers or (isinstance(value, str) and isinstance(wanted, str))
