"""What is asked of Python's syntax trees: names, who binds them, imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef


def arguments(args: ast.arguments) -> list[ast.arg]:
    """All arguments of a function."""
    given = (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg)
    return [argument for argument in given if argument]


def optional_in(tree: ast.Module) -> Iterator[str]:
    """The arguments with a default of a module's public functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            count = len(node.args.defaults)
            yield from (argument.arg for argument in node.args.args[-count:] if count)


def rebound_in(tree: ast.Module) -> set[str]:
    """The variables of a module that its functions bind anew."""
    return {n for node in ast.walk(tree) if isinstance(node, ast.Global) for n in node.names}


def names_in(node: ast.AST) -> set[str]:
    """All names below a node, but those of attributes and arguments."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def is_private(name: str) -> bool:
    return name[0] == "_" and not name.startswith("__")


def binds(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds by itself, its blocks and imports left out."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    nodes: list[ast.AST] = [statement]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name
        if not isinstance(
            node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
        ):
            nodes.extend(
                child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)
            )


def source(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node))


def private(name: str) -> str:
    return name if name[0] == "_" else f"_{name}"


def alias(name: str, bound: str) -> ast.alias:
    return ast.alias(name, bound if bound != name else None)


def is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def merged(statements: list[ast.stmt]) -> list[ast.stmt]:
    """Imports, each name once, those from one module in one statement; the rest behind them."""
    sources: dict[str | None, dict[str, ast.alias]] = {}
    rest = []
    for statement in statements:
        if isinstance(statement, ast.Import):
            sources.setdefault(None, {}).update({ast.unparse(a): a for a in statement.names})
        elif isinstance(statement, ast.ImportFrom):
            aliases = sources.setdefault(statement.module, {})
            aliases.update({ast.unparse(a): a for a in statement.names})
        else:
            rest.append(statement)
    made: list[ast.stmt] = [
        ast.ImportFrom(source, list(aliases.values()), 0)
        if source is not None
        else ast.Import(list(aliases.values()))
        for source, aliases in sources.items()
    ]
    return made + rest


def flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the blocks in it, not of functions and classes."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for _, value in ast.iter_fields(statement):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from flat(value)
                elif isinstance(value, list) and value and isinstance(value[0], ast.ExceptHandler):
                    for handler in value:
                        yield from flat(handler.body)


def imports(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    return (s for s in flat(body) if isinstance(s, ast.Import | ast.ImportFrom))


def function_names(node: Function | ast.Lambda) -> set[str]:
    """The names that are a function's own: arguments, and what its body binds."""
    names = {argument.arg for argument in arguments(node.args)}
    if not isinstance(node, ast.Lambda):
        outer = set()
        for statement in flat(node.body):
            if isinstance(statement, ast.Global | ast.Nonlocal):
                outer.update(statement.names)
            names.update(binds(statement))
        names -= outer
    return names


def locals_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from function_names(node)
        elif isinstance(node, ast.comprehension):
            yield from names_in(node.target)


def used_in(tree: ast.Module) -> set[str]:
    """All names in a module but those of attributes."""
    used = names_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            used.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            used.add(node.name)
    return used | set(locals_in(tree))
