"""Links the agent's modules into few, as MicroPython pays for each module and each name.

A module costs some 400 bytes of heap, also where its code is in flash: its object and dict, a
table of the names it uses, its path and its dotted name. What a board keeps loaded anyway is
therefore one module, `vedette.agent`, and `vedette.tap` for what has to be in place before it. In
place of the others there are modules that only import their public names from there, for an
application that asks for them. What is loaded now and then stays a module of its own, which takes
what it needs from the two.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vedette_tools.errors import CommandError
from vedette_tools.shortening import (
    arguments,
    binds,
    is_private,
    names,
    names_in,
    shorten_arguments,
    shorten_attributes,
)

# Each linked module, and what it is made of besides itself.
GROUPS = {
    "vedette.tap": (
        "flowtable",
        "iothub.clock",
        "nettap.protocols",
        "nettap.sockets",
        "vedette.cold",
        "vedette.log",
        "vedette.outbox",
        "vedette.ports",
        "vedette.store",
    ),
    "vedette.agent": (
        "iothub",
        "iothub.client",
        "iothub.decoding",
        "iothub.encoding",
        "iothub.errors",
        "iothub.link",
        "iothub.methods",
        "iothub.mqtt",
        "umqtt.simple",
        "vedette.collectors",
        "vedette.collectors.network_activity",
        "vedette.configuration",
        "vedette.journal",
        "vedette.scheduler",
        "vedette.sender",
        "vedette.settings",
    ),
    "vedette.lifecycle": ("vedette.desired", "vedette.validation"),
    "vedette.sending": ("vedette.flows", "vedette.messages"),
}
# An application may give the arguments of their functions by name.
PUBLIC = (
    "iothub.client",
    "iothub.dps",
    "iothub.errors",
    "iothub.mqtt",
    "iothub.roots",
    "vedette",
)
# Of these only what is used is linked; an application gets them whole.
LIBRARIES = ("umqtt.simple",)
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in (*names, group)}

_Function = ast.FunctionDef | ast.AsyncFunctionDef
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
    when the module is linked, `constants` what `const` was given."""

    name: str
    package: bool
    tree: ast.Module
    names: dict[str, Target] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)

    @property
    def group(self) -> str | None:
        return _GROUP_OF.get(self.name)


def link(sources: Mapping[str, str]) -> dict[str, str]:
    """Returns the linked sources by path, "vedette/agent.py", as `sources` has them.

    Errors: CommandError for what cannot be linked, such as a module that is used as an object.
    """
    linker = _Linker(sources)
    return {path: linker.text(name) for name, path in linker.paths.items()}


class _Linker:
    def __init__(self, sources: Mapping[str, str]) -> None:
        self.modules: dict[str, Module] = {}
        self.paths: dict[str, str] = {}
        for path, text in sources.items():
            name = path.removesuffix(".py").replace("/", ".")
            package = name.endswith(".__init__")
            name = name.removesuffix(".__init__")
            self.paths[name] = path
            self.modules[name] = Module(name, package, ast.parse(text, path))
        self.whole = {name: sources[self.paths[name]] for name in LIBRARIES}
        for name in LIBRARIES:
            self._shake(self.modules[name])
        for module in self.modules.values():
            self._bind(module)
        self._shorten()
        for group in GROUPS:
            self._rename(group)
        for module in self.modules.values():
            if not module.group:
                self._rename_private(module)

    def text(self, name: str) -> str:
        """The source of a module as it is linked."""
        module = self.modules[name]
        if name in GROUPS:
            imports: list[ast.stmt] = []
            body: list[ast.stmt] = []
            for member in self._members(name):
                for statement in _Rewriter(self, member).body():
                    is_import = isinstance(statement, ast.Import | ast.ImportFrom)
                    (imports if is_import else body).append(statement)
            # A constant of the other linked module may be wanted by several of this one's.
            body = [
                *_merged(imports),
                *{_source(statement): statement for statement in body}.values(),
            ]
        elif name in LIBRARIES:
            return self.whole[name]
        elif module.group:
            body = self._front(module)
        else:
            body = _Rewriter(self, module).body()
        return _source(ast.Module(body, [])) + "\n"

    def imported(self, module: Module, statement: ast.stmt) -> Iterator[tuple[str, Target]]:
        """The names that an import binds, and what they stand for."""
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, Target(whole)
        elif isinstance(statement, ast.ImportFrom):
            parts = module.name.split(".") if statement.level else []
            parts = parts[: len(parts) - statement.level + module.package]
            source = ".".join(parts + ([statement.module] if statement.module else []))
            for alias in statement.names:
                inner = f"{source}.{alias.name}"
                target = Target(inner) if inner in self.modules else Target(source, alias.name)
                yield alias.asname or alias.name, target

    def resolve(self, target: Target) -> Target:
        """Follows what a linked module only imports to where it is made."""
        module = self.modules.get(target.module)
        if module and module.group and target.attribute in module.names:
            further = module.names[target.attribute]
            if further != target:
                return self.resolve(further)
        return target

    def group(self, target: Target) -> str | None:
        return _GROUP_OF.get(target.module)

    def new(self, target: Target) -> str:
        """How what is made at a linked module's top is called now."""
        assert target.attribute
        try:
            return self.modules[target.module].new[target.attribute]
        except KeyError:
            raise CommandError(f"{target.module} has no {target.attribute}") from None

    def constant(self, target: Target) -> ast.expr | None:
        module = self.modules.get(target.module)
        return module.constants.get(target.attribute or "") if module else None

    def _bind(self, module: Module) -> None:
        for statement in _flat(module.tree.body):
            module.names.update(self.imported(module, statement))
            if isinstance(statement, ast.ClassDef):
                module.classes.add(statement.name)
            for name in binds(statement):
                module.names[name] = Target(module.name, name)
            match statement:
                case ast.Assign([ast.Name(name)], ast.Call(ast.Name("const"), [value])):
                    if all(
                        isinstance(n, ast.Constant | ast.Tuple | ast.Load) for n in ast.walk(value)
                    ):
                        module.constants[name] = value

    def _shake(self, module: Module) -> None:
        """Leaves out of a library what no other module asks for by name."""
        used: set[str] = set()
        for other in self.modules.values():
            if other is not module:
                for node in ast.walk(other.tree):
                    if isinstance(node, ast.ImportFrom) and node.module == module.name:
                        used.update(alias.name for alias in node.names)
                        used.update(
                            n.attr for n in ast.walk(other.tree) if isinstance(n, ast.Attribute)
                        )
        body: list[ast.stmt] = []
        for statement in module.tree.body:
            if isinstance(statement, ast.ClassDef) and statement.name in used:
                statement.body = [s for s in statement.body if set(binds(s)) & used]
                body.append(statement)
        module.tree.body = body

    def _shorten(self) -> None:
        trees = {module.name: module.tree for module in self.modules.values()}
        family = {name: name for name in trees}
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    for base in node.bases:
                        target = isinstance(base, ast.Name) and module.names.get(base.id)
                        home = target and self.resolve(target).module
                        if home in trees:
                            old, new = family[module.name], family[home]
                            family = {n: new if f == old else f for n, f in family.items()}
        given = {
            node.arg
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword)
        }
        for name, tree in trees.items():
            shorten_arguments(tree, name in PUBLIC, given)
        shorten_attributes(trees, family)

    def _rename_private(self, module: Module) -> None:
        """The same of a module that is not linked: only what nobody else sees."""
        used, hidden = _used(module.tree), set(_locals(module.tree))
        free = (n for n in names() if n not in used and n not in module.new.values())
        by_text = "_check_" if module.name.startswith("vedette.baseline.") else ""
        for name, target in module.names.items():
            target = self.resolve(target)
            if self.constant(target):
                module.new[name] = _private(name)
            elif self.group(target) and target.attribute:
                there = self.new(target)
                if there not in used and there not in module.new.values():
                    module.new[name] = there
            elif is_private(name) and name not in hidden:
                if not (by_text and name.startswith(by_text)):  # the baseline looks for these
                    module.new[name] = next(free)

    def _members(self, group: str) -> list[Module]:
        """The modules of a group, each behind those that it imports at its top."""
        done: list[Module] = []

        def visit(name: str) -> None:
            module = self.modules.get(name)
            if module and module.group == group and module not in done:
                for target in module.names.values():
                    if target.module != name:
                        visit(target.module)
                        visit(self.resolve(target).module)
                if module not in done:
                    done.append(module)

        for name in (*GROUPS[group], group):
            visit(name)
        return done

    def _rename(self, group: str) -> None:
        """Says how each name at the tops of a group's modules is called in the one module."""
        members = self._members(group)
        # Local names too: one of another module must not hide it.
        used = set[str]().union(*(_used(module.tree) for module in members))
        taken: dict[str, Target] = {}
        free = (name for name in names() if name not in used and name not in taken)
        for module in (members[-1], *members[:-1]):
            for name, target in module.names.items():
                target = self.resolve(target)
                own = target == Target(module.name, name)
                home = self.group(target)
                if home == group and not own:
                    continue
                public = name[0] != "_" and (not own or module.name in (group, *PUBLIC))
                known = next((n for n, t in taken.items() if t == target), None)
                if home and not target.attribute:
                    target = Target(home)
                    new = _apart(_binding(home), module, name, target, taken)
                elif self.constant(target):
                    new = _apart(_private(name), module, name, target, taken)
                elif home not in (None, group):  # it may be called here as it is there
                    there = self.new(target)
                    new = known or (next(free) if there in used or there in taken else there)
                elif not public:
                    new = known or next(free)
                else:
                    new = _apart(name, module, name, target, taken)
                taken[new] = target
                module.new[name] = new

    def _front(self, module: Module) -> list[ast.stmt]:
        """What is in a linked module's place, for an application that imports it."""
        body: list[ast.stmt] = []
        for name, target in module.names.items():
            if name[0] == "_" or target.module != module.name and not module.package:
                continue
            target = self.resolve(target)
            group = self.group(target)
            if not group or not target.attribute:
                continue
            value = self.constant(target)
            if value:
                body.append(ast.Assign([ast.Name(name)], value))
            else:
                body.append(ast.ImportFrom(group, [_alias(self.new(target), name)], 0))
        return _merged(body)


class _Rewriter(ast.NodeTransformer):
    """Rewrites one module for its group, or for what it imports from one."""

    def __init__(self, linker: _Linker, module: Module) -> None:
        self.linker = linker
        self.of = module
        self.scopes: list[dict[str, Target | None]] = []

    def body(self) -> list[ast.stmt]:
        return self._visited(
            statement
            for statement in self.of.tree.body
            if not _is_docstring(statement)
            and not (self.of.group and list(binds(statement)) == ["__all__"])
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

    def visit_FunctionDef(self, node: _Function) -> ast.AST:
        if not self.scopes:
            node.name = self._own(node.name)
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        self._defaults(node.args)

        def inner() -> None:
            node.body = self._visited(node.body) or [ast.Pass()]

        self._function(_function_names(node), _imports(node.body), inner)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)

        def inner() -> None:
            node.body = self.visit(node.body)

        self._function(_function_names(node), (), inner)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if not self.scopes:
            node.name = self._own(node.name)
        node.bases = [self.visit(base) for base in node.bases]
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        names: dict[str, Target | None] = {}  # that the body has bound so far
        made = []
        for statement in node.body:
            bound = dict.fromkeys(binds(statement))
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
        names = set[str]().union(*(names_in(each.target) for each in node.generators))
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
                    node.value = self._global(_binding(group))
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
                        [ast.Name(_private(name))], ast.Call(ast.Name("const"), [value], [])
                    )
                )
            elif group and target.attribute:
                made.append(ast.ImportFrom(group, [_alias(self.linker.new(target), name)], 0))
            elif group:
                package, _, leaf = group.rpartition(".")
                name = name if local else _binding(group)
                made.append(ast.ImportFrom(package, [_alias(leaf, name)], 0))
            elif target.attribute:
                made.append(ast.ImportFrom(target.module, [_alias(target.attribute, name)], 0))
            elif isinstance(node, ast.Import):
                made.append(ast.Import([_alias(target.module, name)]))
            else:
                package, _, leaf = target.module.rpartition(".")
                made.append(ast.ImportFrom(package, [_alias(leaf, name)], 0))
        return _merged(made)

    visit_Import = visit_ImportFrom = _import


def _apart(
    new: str, module: Module, name: str, target: Target, taken: Mapping[str, Target]
) -> str:
    """That name, or one that says of which module it is where another has it. Errors:
    CommandError."""
    if taken.get(new, target) != target or hasattr(builtins, new):
        new = ("_" if new[0] == "_" else "") + f"{module.name.rpartition('.')[2]}_{name}"
    if taken.get(new, target) != target:
        raise CommandError(f"{module.name}: {name} cannot be told apart in {module.group}")
    return new


def _source(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node))


def _private(name: str) -> str:
    return name if name[0] == "_" else f"_{name}"


def _binding(group: str) -> str:
    """What a module that is not linked calls a linked one."""
    return "_" + group.rpartition(".")[2]


def _alias(name: str, bound: str) -> ast.alias:
    return ast.alias(name, bound if bound != name else None)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _merged(statements: list[ast.stmt]) -> list[ast.stmt]:
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


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the blocks in it, not of functions and classes."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for _, value in ast.iter_fields(statement):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from _flat(value)
                elif isinstance(value, list) and value and isinstance(value[0], ast.ExceptHandler):
                    for handler in value:
                        yield from _flat(handler.body)


def _imports(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    return (s for s in _flat(body) if isinstance(s, ast.Import | ast.ImportFrom))


def _function_names(node: _Function | ast.Lambda) -> set[str]:
    """The names that are a function's own: arguments, and what its body binds."""
    names = {argument.arg for argument in arguments(node.args)}
    if not isinstance(node, ast.Lambda):
        outer = set()
        for statement in _flat(node.body):
            if isinstance(statement, ast.Global | ast.Nonlocal):
                outer.update(statement.names)
            names.update(binds(statement))
        names -= outer
    return names


def _locals(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _function_names(node)
        elif isinstance(node, ast.comprehension):
            yield from names_in(node.target)


def _used(tree: ast.Module) -> set[str]:
    """All names in a module but those of attributes."""
    used = names_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            used.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            used.add(node.name)
    return used | set(_locals(tree))
