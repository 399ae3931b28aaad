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
from collections.abc import Iterator, Mapping

from vedette_tools import syntax
from vedette_tools.errors import CommandError
from vedette_tools.rewriting import Module, Rewriter, Target, binding
from vedette_tools.shortening import names, shorten_arguments, shorten_attributes

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
# What counts in a linked module is asked for each time: an import would keep what it was.
_VARIABLES = """
__all__ = [name for name in globals() if name[0] != "_"]

def __getattr__(name):
    import %s as linked
    return getattr(linked, %r.get(name, "?"))
"""
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in (*names, group)}


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
            self.modules[name] = Module(name, _GROUP_OF.get(name), package, ast.parse(text, path))
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
                for statement in Rewriter(self, member).body():
                    is_import = isinstance(statement, ast.Import | ast.ImportFrom)
                    (imports if is_import else body).append(statement)
            # A constant of the other linked module may be wanted by several of this one's.
            body = [
                *syntax.merged(imports),
                *{syntax.source(statement): statement for statement in body}.values(),
            ]
        elif name in LIBRARIES:
            return self.whole[name]
        elif module.group:
            body = self._front(module)
        else:
            body = Rewriter(self, module).body()
        return syntax.source(ast.Module(body, [])) + "\n"

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
        module.variables = syntax.rebound_in(module.tree)
        for statement in syntax.flat(module.tree.body):
            module.names.update(self.imported(module, statement))
            if isinstance(statement, ast.ClassDef):
                module.classes.add(statement.name)
            for name in syntax.binds(statement):
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
                statement.body = [s for s in statement.body if set(syntax.binds(s)) & used]
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
        for name, module in self.modules.items():
            # Who is handed an object of a module that is not linked may give these by name.
            optional = set() if module.group else set(syntax.optional_in(module.tree))
            shorten_arguments(module.tree, name in PUBLIC, given | optional)
        shorten_attributes(trees, family)

    def _rename_private(self, module: Module) -> None:
        """The same of a module that is not linked: only what nobody else sees."""
        used, hidden = syntax.used_in(module.tree), set(syntax.locals_in(module.tree))
        public = module.name in PUBLIC  # `from … import *` must not hide a built-in function
        free = (
            name
            for name in names()
            if not (name in used or name in module.new.values())
            and (syntax.is_private(name) or not public)
        )
        by_text = "_check_" if module.name.startswith("vedette.baseline.") else ""
        for name, target in module.names.items():
            target = self.resolve(target)
            if self.constant(target):
                module.new[name] = syntax.private(name)
            elif self.group(target) and target.attribute:
                there = self.new(target)
                if not (public or there in used or there in module.new.values()):
                    module.new[name] = there
            elif syntax.is_private(name) and name not in hidden:
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
        used = set[str]().union(*(syntax.used_in(module.tree) for module in members))
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
                    new = _apart(binding(home), module, name, target, taken)
                elif self.constant(target):
                    new = _apart(syntax.private(name), module, name, target, taken)
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
        variables: dict[str, str] = {}
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
            elif name in module.variables:
                variables[name] = self.new(target)
            else:
                body.append(ast.ImportFrom(group, [syntax.alias(self.new(target), name)], 0))
        if variables:
            body += ast.parse(_VARIABLES % (module.group, variables)).body
        return syntax.merged(body)


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
