"""Rewrites a module for the one that it is linked into, or for what it imports from one."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from vedette_tools import syntax
from vedette_tools.errors import CommandError

_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True)
class Target:
    """What a name stands for: an attribute of a module, or where that is None the module."""

    module: str
    attribute: str | None = None


_CONST = Target("micropython", "const")  # the compiler knows it, imported or not


@dataclass(eq=False)
class Module:
    """A source file. Of what its top binds: `names` say what it stands for, `new` how it is called
    when the module is linked, `constants` what `const` was given, and `variables` are those that
    its functions bind anew."""

    name: str
    group: str | None
    package: bool
    tree: ast.Module
    names: dict[str, Target] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)


class Names(Protocol):
    """What a linker knows of names, as its methods say."""

    def imported(self, module: Module, statement: ast.stmt) -> Iterator[tuple[str, Target]]: ...
    def resolve(self, target: Target) -> Target: ...
    def group(self, target: Target) -> str | None: ...
    def new(self, target: Target) -> str: ...
    def constant(self, target: Target) -> ast.expr | None: ...


class Rewriter(ast.NodeTransformer):
    """Rewrites one module for its group, or for what it imports from one."""

    def __init__(self, linker: Names, module: Module) -> None:
        self.linker = linker
        self.of = module
        self.scopes: list[dict[str, Target | None]] = []

    def body(self) -> list[ast.stmt]:
        return self._visited(
            statement
            for statement in self.of.tree.body
            if not syntax.is_docstring(statement)
            and not (self.of.group and list(syntax.binds(statement)) == ["__all__"])
        )

    # --- scopes ---

    def _function(
        self, names: Iterable[str], imports: Iterable[ast.stmt], inner: Callable[[], object]
    ) -> None:
        scope: dict[str, Target | None] = dict.fromkeys(names)
        for statement in imports:
            for name, target in self.linker.imported(self.of, statement):
                scope[name] = self.linker.resolve(target)
        self.scopes.append(scope)
        inner()
        self.scopes.pop()

    def visit_FunctionDef(self, node: syntax.Function) -> ast.AST:
        if not self.scopes:
            node.name = self._own(node.name)
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        self._defaults(node.args)

        def inner() -> None:
            node.body = self._visited(node.body) or [ast.Pass()]

        self._function(syntax.function_names(node), syntax.imports(node.body), inner)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)

        def inner() -> None:
            node.body = self.visit(node.body)

        self._function(syntax.function_names(node), (), inner)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if not self.scopes:
            node.name = self._own(node.name)
        node.bases = [self.visit(base) for base in node.bases]
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        names: dict[str, Target | None] = {}  # that the body has bound so far
        made = []
        for statement in node.body:
            bound = dict.fromkeys(syntax.binds(statement))
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self.scopes.append({})  # what the body of a class binds is hidden from its methods
                made.append(self.visit(statement))
            else:
                self.scopes.append(names)
                if isinstance(statement, ast.Assign):
                    statement.value = self.visit(statement.value)
                else:
                    statement = self.visit(statement)
                made.append(statement)
            self.scopes.pop()
            names |= bound
        node.body = made
        return node

    def _comprehension(self, node: _Comprehension) -> ast.AST:
        names = set[str]().union(*(syntax.names_in(each.target) for each in node.generators))
        self._function(names, (), lambda: self.generic_visit(node))
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _defaults(self, args: ast.arguments) -> None:
        args.defaults = [self.visit(value) for value in args.defaults]
        args.kw_defaults = [value and self.visit(value) for value in args.kw_defaults]

    def _visited(self, body: Iterable[ast.stmt]) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for statement in body:
            new = self.visit(statement)
            made.extend(new if isinstance(new, list) else [new])
        return made

    # --- names ---

    def _own(self, name: str) -> str:
        return self.of.new.get(name, name)

    def _find(self, name: str) -> tuple[Target | None, bool]:
        """What a name stands for here, and whether a function binds it."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name], True
        target = self.of.names.get(name)
        return target and self.linker.resolve(target), False

    def _global(self, name: str) -> ast.Name:
        """A name of the linked module, seen from here."""
        if any(scope.get(name, self) is None for scope in self.scopes):
            raise CommandError(f"{self.of.name}: a local {name} hides the linked module's")
        return ast.Name(name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        target, local = self._find(node.id)
        if target is None:
            return node
        group = self.linker.group(target)
        if group and not target.attribute:
            raise CommandError(f"{self.of.name} uses the module {target.module} as an object")
        if group and group == self.of.group:
            return self._global(self.linker.new(target))
        if local:
            return node
        return self._global(self._own(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name):
            target, local = self._find(node.value.id)
            group = target and self.linker.group(target)
            inner = target and not target.attribute and Target(target.module, node.attr)
            value = self.linker.constant(self.linker.resolve(inner)) if inner else None
            if value:
                return value
            if target and group and not target.attribute:
                target = self.linker.resolve(Target(target.module, node.attr))
                if self.linker.group(target) != group:
                    raise CommandError(f"{self.of.name}: {ast.unparse(node)} is of another group")
                new = self.linker.new(target)
                if group == self.of.group:
                    if not isinstance(node.ctx, ast.Load):
                        raise CommandError(f"{self.of.name} assigns to {ast.unparse(node)}")
                    return self._global(new)
                if not local:
                    node.value = self._global(binding(group))
                node.attr = new
                return node
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self._own(name) for name in node.names]
        return node

    def _import(self, node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        for name, target in self.linker.imported(self.of, node):
            target = self.linker.resolve(target)
            group = self.linker.group(target)
            local = bool(self.scopes)
            if group and group == self.of.group or target == _CONST:
                continue
            value = self.linker.constant(target)
            if not local:
                name = self._own(name)
            if value:
                made.append(
                    ast.Assign(
                        [ast.Name(syntax.private(name))], ast.Call(ast.Name("const"), [value], [])
                    )
                )
            elif group and target.attribute:
                made.append(
                    ast.ImportFrom(group, [syntax.alias(self.linker.new(target), name)], 0)
                )
            elif group:
                package, _, leaf = group.rpartition(".")
                name = name if local else binding(group)
                made.append(ast.ImportFrom(package, [syntax.alias(leaf, name)], 0))
            elif target.attribute:
                made.append(
                    ast.ImportFrom(target.module, [syntax.alias(target.attribute, name)], 0)
                )
            elif isinstance(node, ast.Import):
                made.append(ast.Import([syntax.alias(target.module, name)]))
            else:
                package, _, leaf = target.module.rpartition(".")
                made.append(ast.ImportFrom(package, [syntax.alias(leaf, name)], 0))
        return syntax.merged(made)

    visit_Import = visit_ImportFrom = _import


def binding(group: str) -> str:
    """What a module that is not linked calls a linked one."""
    return "_" + group.rpartition(".")[2]
