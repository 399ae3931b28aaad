"""Gives private names few and short ones: each name costs 7 bytes of heap, wherever it is.

MicroPython keeps one table of all names, which doubles as it fills. What is private to one module
(an attribute, a function, an argument that nobody gives by its name) has a name that means
something only there, so that modules can share theirs.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count, product
from string import ascii_letters

from vedette_tools import syntax

# MicroPython has these names in ROM, the same on every port, so that they cost nothing: a part of
# `static_qstr_list` in its py/makeqstrdata.py. Left out are those that its compiler takes in a
# special way, or makes code look up (AssertionError for `assert`, BaseException for `async with`),
# and those that its own code looks up in objects it is given.
_FREE = (
    "abs all any append args builtins bytearray bytecode bytes callable chr classmethod "
    "clear copy count dict dir divmod end endswith eval exec extend find format from_bytes "
    "get getattr globals hasattr hash id index insert isalpha isdigit isinstance islower "
    "isspace issubclass isupper items iter join key keys len list little locals lower lstrip "
    "main map next open ord pop popitem pow print remove replace repr reverse rfind rindex "
    "round rsplit rstrip sep set setattr setdefault sort sorted split startswith "
    "staticmethod step str strip sum tuple type update upper value values zip "
    "ArithmeticError AttributeError EOFError GeneratorExit "
    "ImportError IndentationError IndexError KeyError KeyboardInterrupt LookupError "
    "MemoryError NameError NoneType NotImplementedError OSError OverflowError RuntimeError "
    "StopIteration SyntaxError SystemExit TypeError ValueError ZeroDivisionError"
).split()

# Attributes that only the agent's own modules use.
_INTERNAL = frozenset(
    "after_jobs agent_id alive applied attempt attempts beat callback callbacks calls "
    "check_alerts collected commit deliver document drop_hook due emit every_beat expire "
    "fault finish gave_way handler handlers hold holds interval mark on_tick own_client "
    "period polled prefix priority renew replies reserve resident revision section serving "
    "tasks users".split()
)


def names() -> Iterator[str]:
    """Names to take in turn, without an end."""
    yield from _FREE
    for length in count(1):
        yield from ("_" + "".join(letters) for letters in product(ascii_letters, repeat=length))


def shorten_attributes(trees: Mapping[str, ast.Module], families: Mapping[str, str]) -> None:
    """Renames the private attributes and methods of each module's classes.

    Modules are of one family, by its name, where a class of one inherits from one of the other.
    """
    where = defaultdict(set)  # the families of modules that a name stands in
    defined = set()
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                where[node.attr].add(families[module])
                if not isinstance(node.ctx, ast.Load):
                    defined.add(node.attr)
            elif isinstance(node, ast.ClassDef):
                for name in (name for statement in node.body for name in syntax.binds(statement)):
                    where[name].add(families[module])
                    defined.add(name)
    # What stands at a module's top can be meant by an attribute too.
    tops = {
        statement.name
        for tree in trees.values()
        for statement in tree.body
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    shared = {name for name in where if syntax.is_private(name) or name in _INTERNAL - tops}
    taken: dict[str, set[str]] = defaultdict(set)  # by family
    for name, members in where.items():
        if name not in shared:
            for family in members:
                taken[family].add(name)
    new: dict[str, str] = {}
    for name in sorted(where, key=lambda name: (-len(where[name]), name)):
        if name in shared & defined:
            new[name] = next(
                short
                for short in names()
                if all(short not in taken[family] for family in where[name])
            )
            for family in where[name]:
                taken[family].add(new[name])
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                node.attr = new.get(node.attr, node.attr)
            elif isinstance(node, ast.ClassDef):
                for statement in node.body:
                    _rename_bound(statement, new)


def shorten_arguments(tree: ast.Module, public: bool, given: set[str | None]) -> None:
    """Renames the arguments of a module's functions; of public ones only where `public` is False.

    `given` are the names of arguments that calls give by name.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        name = "_" if isinstance(node, ast.Lambda) else node.name
        if public and not syntax.is_private(name) or name == "start":
            continue
        args = node.args
        used = syntax.names_in(node)
        used |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
        free = (n for n in names() if n not in used)
        inside = {
            argument.arg
            for inner in ast.walk(node)
            if isinstance(inner, ast.arguments) and inner is not args
            for argument in syntax.arguments(inner)
        }
        new = {}
        for argument in syntax.arguments(args):
            if argument.arg not in {*given, *inside, "self"} and len(argument.arg) > 1:
                new[argument.arg] = next(free)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                inner.id = new.get(inner.id, inner.id)
            elif isinstance(inner, ast.Global | ast.Nonlocal):
                inner.names = [new.get(n, n) for n in inner.names]
        for argument in syntax.arguments(args):
            argument.arg = new.get(argument.arg, argument.arg)


def _rename_bound(statement: ast.stmt, new: Mapping[str, str]) -> None:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        statement.name = new.get(statement.name, statement.name)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                target.id = new.get(target.id, target.id)
