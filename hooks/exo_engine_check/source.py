"""The plugin's package, read by `ast`: nothing of it is ever imported."""

import ast
import builtins
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .files import UnreadableError, words
from .findings import Place

Function = ast.FunctionDef | ast.AsyncFunctionDef
STANDARD_LIBRARY = sys.stdlib_module_names


@dataclass(frozen=True)
class Import:
    """One imported name: `module` whole, or `name` of it."""

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Definition:
    """What a name stands for at the top of a module."""

    module: "Module"
    node: ast.AST
    imported: Import | None = None
    name: str = ""  # in that module

    @property
    def place(self) -> Place:
        return Place(self.module.path, getattr(self.node, "lineno", 0))


@dataclass(eq=False)
class Module:
    """One file of the package."""

    name: str
    path: str
    text: str | None
    problem: str = ""
    problem_line: int = 0

    @cached_property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree, empty where the file can't be parsed; then `problem` says why."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.text or "")
        except SyntaxError as error:
            self.problem = f"is no Python: {error.msg}"
            self.problem_line = error.lineno or 0
        except (ValueError, RecursionError, MemoryError) as error:
            self.problem = f"can't be parsed: {str(error) or type(error).__name__}"
        return ast.Module([], [])

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def local_imports(self) -> dict[str, str]:
        """What names stand for that an import binds anywhere in the file."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found.setdefault(alias.asname or top, alias.name if alias.asname else top)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{self.absolute(node)}.{alias.name}"
                    found.setdefault(alias.asname or alias.name, name)
        return found

    def place(self, node: ast.AST) -> Place:
        return Place(self.path, getattr(node, "lineno", 0))

    @cached_property
    def runs(self) -> list[ast.stmt]:
        """The statements that an import runs, in order; those for type checkers are left out."""
        return list(running(self.tree.body))

    @cached_property
    def imports(self) -> list[Import]:
        """What an import of this module imports."""
        return [found for node in self.runs for found in self._imports_of(node)]

    @cached_property
    def all_imports(self) -> list[Import]:
        """Imports of the whole file, those of functions too; not those for type checkers."""
        hidden = {
            id(inner)
            for node in self.nodes
            if isinstance(node, ast.If) and _for_type_checkers(node.test)
            for statement in node.body
            for inner in ast.walk(statement)
        }
        return [i for node in self.nodes if id(node) not in hidden for i in self._imports_of(node)]

    @cached_property
    def tried(self) -> list[tuple[int, int]]:
        """The lines inside `try` or `with suppress`, where a failure is expected."""
        return [
            (node.body[0].lineno, node.body[-1].end_lineno or node.body[-1].lineno)
            for node in self.nodes
            if isinstance(node, ast.Try | ast.TryStar | ast.With) and _expects_failure(node)
        ]

    @cached_property
    def texts(self) -> dict[str, int]:
        """Each text that the file spells, and the first line that does."""
        found: dict[str, int] = {}
        for node in self.nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found[node.value] = min(node.lineno, found.get(node.value, node.lineno))
        return found

    @cached_property
    def changes(self) -> dict[str, list[ast.stmt]]:
        """The statements at the top that bind each name, or change what it stands for."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.runs:
            for name in {*_bound(statement), *_mutated(own_parts(statement))}:
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def branched(self) -> set[str]:
        """Names of which a branch or a loop makes one change among several."""
        always = set(self.tree.body)
        return {n for n, c in self.changes.items() if len(c) > 1 and not always.issuperset(c)}

    @cached_property
    def touched(self) -> set[str]:
        """Names whose values change where `changes` has no order: in functions, or by other names.

        An attribute is there with its dot.
        """
        top = [part for statement in self.runs for part in own_parts(statement)]
        aliases, changed = _aliases(top), _mutated(top)
        found = {name for name in changed if name[0] == "." or name in self.local_imports}
        found |= _others(changed, aliases)
        for node in self.nodes:
            if isinstance(node, Function | ast.ClassDef | ast.Lambda):
                inner = list(_scope(node))
                changed = _mutated(inner)
                found |= changed | _others(changed, aliases | _aliases(inner))
        return found

    def _imports_of(self, node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(self.absolute(node), alias.name, node.lineno)

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that `from … import` names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        keep = len(parts) - node.level + (1 if self.is_package else 0)
        base = parts[: max(keep, 0)]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def names(self) -> dict[str, Definition]:
        """What the names at the top stand for; of two definitions the last, imports aside."""
        found: dict[str, Definition] = {}
        for node in self.runs:
            for name, definition in self._defined(node):
                if definition.imported is not None and name in found:
                    continue  # `try: import a` … `except ImportError: a = None`: the first is meant
                if name in found and found[name].imported is not None:
                    continue
                found[name] = definition
        return self._globals | found

    @cached_property
    def _globals(self) -> dict[str, Definition]:
        """The names that functions bind at the top."""
        found: dict[str, Definition] = {}
        for function in self.nodes if "global " in (self.text or "") else ():
            if isinstance(function, Function):
                inner = list(own_nodes(function))
                told = {n for node in inner if isinstance(node, ast.Global) for n in node.names}
                for node in inner if told else ():
                    if isinstance(node, ast.stmt):
                        found |= {n: d for n, d in self._defined(node) if n in told}
        return found

    def _defined(self, node: ast.stmt) -> Iterator[tuple[str, Definition]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                module = alias.name if alias.asname else bound
                yield bound, Definition(self, node, Import(module, None, node.lineno))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                imported = Import(self.absolute(node), alias.name, node.lineno)
                yield alias.asname or alias.name, Definition(self, node, imported)
        else:
            for name in _bound(node):
                yield name, Definition(self, node, name=name)

    @cached_property
    def is_open(self) -> bool:
        """Whether the module makes names as it runs, which its source still spells."""
        makers = {"globals", "setattr", "exec", "vars"}
        return "__getattr__" in self.names or any(
            isinstance(node, ast.Call) and getattr(node.func, "id", "") in makers
            for node in self.nodes
        )


def own_parts(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement's nodes, without statements below it, lambdas, and names of comprehensions."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        yield node
        inner = ast.iter_child_nodes(node)
        if isinstance(node, ast.comprehension):
            inner = iter([node.iter, *node.ifs])
        pending += (n for n in inner if not isinstance(n, ast.stmt | ast.Lambda))


def _scope(node: Function | ast.ClassDef | ast.Lambda) -> Iterator[ast.AST]:
    """What runs in a scope of its own; methods have theirs."""
    if isinstance(node, ast.ClassDef):
        return (part for statement in running(node.body) for part in own_parts(statement))
    return ast.walk(node)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds."""
    if isinstance(statement, ast.AugAssign) or getattr(statement, "value", statement) is None:
        return  # `a |= b` changes, `a: dict` only says
    for node in own_parts(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        for field_name in ("asname", "name", "rest"):  # of imports, definitions and patterns
            name = getattr(node, field_name, None)
            if isinstance(name, str):
                yield name.partition(".")[0]
                break


_MUTATING = words(
    "__setitem__ add append clear discard extend insert pop popitem remove reverse setdefault sort"
    " update"
)


def _mutated(nodes: Iterable[ast.AST]) -> set[str]:
    """The names by which nodes change values in place, or may."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Subscript | ast.Attribute):
            if not isinstance(node.ctx, ast.Load) or getattr(node, "attr", "") in _MUTATING:
                found |= _path(node)
        elif isinstance(node, ast.Global):
            found |= set(node.names)
        elif isinstance(node, ast.AugAssign):
            found |= _path(node.target)
        elif isinstance(node, ast.Delete):
            found |= {name for target in node.targets for name in _path(target)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found |= _handed_on(node.value)
    return found


def _handed_on(call: ast.Call) -> set[str]:
    """The names that a call is given which nobody asks for a result: it may change them."""
    if last_name(call.func) in {*_MUTATING, "print"}:
        return set()
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {node.id for node in given if isinstance(node, ast.Name)}


def _path(node: ast.expr) -> set[str]:
    """The name that an expression begins with, and the attributes on its way."""
    found = set()
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
        if isinstance(node, ast.Attribute):
            found.add(f".{node.attr}")
        node = node.func if isinstance(node, ast.Call) else node.value
    return found | {node.id} if isinstance(node, ast.Name) else found


def _aliases(nodes: Iterable[ast.AST]) -> dict[str, set[str]]:
    """For each name what else its value may be called, as a whole or as a part."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        targets: list[ast.expr] = []
        names: set[str] = set()
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = _path(node.value)
        elif isinstance(node, ast.For):
            targets = [node.target]
            names = {part.id for part in ast.walk(node.iter) if isinstance(part, ast.Name)}
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    found[part.id] = found.get(part.id, set()) | names
    return found


def _others(names: set[str], aliases: dict[str, set[str]]) -> set[str]:
    """All that these names are aliases of."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        new = aliases.get(pending.pop(), set()) - found
        found |= new
        pending += new
    return found


def _expects_failure(node: ast.Try | ast.TryStar | ast.With) -> bool:
    calls = [item.context_expr for item in getattr(node, "items", ())]
    names = {last_name(call.func) for call in calls if isinstance(call, ast.Call)}
    return not isinstance(node, ast.With) or "suppress" in names


def running(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements with those below them that run when they do."""
    pending = body[::-1]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            pending += [*_below(node)][::-1]


def _below(node: ast.stmt) -> Iterator[ast.stmt]:
    skips = isinstance(node, ast.If) and (_for_type_checkers(node.test) or _for_scripts(node.test))
    for part in ("orelse",) if skips else ("body", "handlers", "cases", "orelse", "finalbody"):
        for inner in getattr(node, part, ()):
            yield from [inner] if isinstance(inner, ast.stmt) else inner.body


def _for_scripts(test: ast.expr) -> bool:
    left = test.left if isinstance(test, ast.Compare) else None
    return isinstance(left, ast.Name) and left.id == "__name__"


def _for_type_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


@dataclass
class Package:
    """The modules of a package by their whole names."""

    modules: dict[str, Module] = field(default_factory=dict)
    tops: set[str] = field(default_factory=set)
    values: dict[tuple[str, str], Any] = field(default_factory=dict)  # what evaluate worked out

    def add(self, name: str, path: str, text: str | UnreadableError) -> None:
        self.tops.add(name.partition(".")[0])
        if isinstance(text, UnreadableError):
            self.modules[name] = Module(name, path, None, str(text))
        else:
            self.modules[name] = Module(name, path, text)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def spelling(self, word: str) -> Iterator[Module]:
        """The modules whose text has a word: the others need no walk through their trees."""
        return (module for module in self if word in (module.text or ""))

    def owns(self, module: str) -> bool:
        """Whether a module's name is within the packages that were read."""
        return module.partition(".")[0] in self.tops

    def find(self, module: Module, name: str, depth: int = 8) -> Definition | None:
        """What a name of a module stands for, through imports inside the package.

        A definition with `imported` comes from elsewhere; None: the module has no such name.
        """
        definition = module.names.get(name)
        imported = definition.imported if definition else None
        if imported and (imported.module, imported.name) == (module.name, name):
            definition = None  # `from . import x` in the package itself: x is a module of it
        if definition is None:
            child = self.modules.get(f"{module.name}.{name}") if module.is_package else None
            if child is not None:
                return Definition(child, child.tree, Import(child.name, None, 0))
            for starred in (d for d in module.imports if d.name == "*"):
                source = self.modules.get(starred.module)
                found = self.find(source, name, depth - 1) if source and depth else None
                if found:
                    return found
            return None
        if imported is None:
            return self._original(definition, depth) or definition
        if imported.name is None or depth == 0:
            return definition
        source = self.modules.get(imported.module)
        if source is None:
            return definition
        return self.find(source, imported.name, depth - 1)

    def _original(self, definition: Definition, depth: int) -> Definition | None:
        """B where the definition is `A = B`, which nothing changes later."""
        module, node = definition.module, definition.node
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if not (isinstance(value, ast.Name) and all(isinstance(t, ast.Name) for t in targets)):
            return None
        known = module.names.get(value.id)
        if depth == 0 or len(module.changes.get(definition.name, ())) != 1:
            return None
        if known and known.place.line >= definition.place.line:
            return None
        return self.find(module, value.id, depth - 1)

    def is_settled(self, module: Module, name: str) -> bool:
        """Whether nothing changes a constant but the statements at the top of its own module."""
        return name not in module.branched | module.touched and not any(
            f".{name}" in other.touched
            or any(
                other.local_imports.get(alias, "").rpartition(".")[2] == name
                for alias in other.touched
            )
            for other in self.spelling(name)
        )

    def lacks(self, module: Module, name: str) -> bool:
        """Whether a module surely has no such name."""
        if self.find(module, name) is not None or module.problem:
            return False
        if any(i.name == "*" and not self.owns(i.module) for i in module.imports):
            return False
        return not (module.is_open and re.search(rf"\b{re.escape(name)}\b", module.text or ""))

    def loaded_with(self, roots: list[str]) -> list[Module]:
        """The modules that importing these imports: parents first, then what they import."""
        pending, seen = list(roots), dict[str, None]()
        while pending:
            name = pending.pop(0)
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                part = ".".join(parts[:count])
                module = self.modules.get(part)
                if module is None or part in seen:
                    continue
                seen[part] = None
                for found in module.imports:
                    pending.append(found.module)
                    if found.name:
                        pending.append(f"{found.module}.{found.name}")
        return [self.modules[name] for name in seen]

    def dotted(self, module: Module, node: ast.expr) -> str:
        """The whole name that an expression such as `np.random.rand` names, or ''."""
        if isinstance(node, ast.Attribute):
            base = self.dotted(module, node.value)
            return f"{base}.{node.attr}" if base else ""
        if not isinstance(node, ast.Name):
            return ""
        definition = module.names.get(node.id)
        if definition is None or definition.imported is None:
            local = module.local_imports.get(node.id)
            return local or ("" if definition or not hasattr(builtins, node.id) else node.id)
        found = definition.imported
        return f"{found.module}.{found.name}" if found.name else found.module


@dataclass(eq=False)
class Class:
    """A class with what it inherits inside the package."""

    package: Package
    module: Module
    node: ast.ClassDef
    is_engine: bool = False  # exo's InferenceEngine is among its bases
    is_open: bool = False  # it may have methods that the source doesn't show
    chain: list[tuple[Module, ast.ClassDef]] = field(default_factory=list)

    @classmethod
    def read(cls, package: Package, module: Module, node: ast.ClassDef) -> "Class":
        made = cls(package, module, node)
        made._extend(module, node)
        return made

    def _extend(self, module: Module, node: ast.ClassDef) -> None:
        if any(node is known for _, known in self.chain) or len(self.chain) > 20:
            return
        self.chain.append((module, node))
        self.is_open |= bool(node.keywords) and any(k.arg != "metaclass" for k in node.keywords)
        self.is_open |= any(not self._harmless(module, d) for d in node.decorator_list)
        for base in node.bases:
            self._add_base(module, base.value if isinstance(base, ast.Subscript) else base)

    def _harmless(self, module: Module, decorator: ast.expr) -> bool:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = self.package.dotted(module, node)
        return name.partition(".")[0] in STANDARD_LIBRARY

    def _add_base(self, module: Module, base: ast.expr) -> None:
        if isinstance(base, ast.Name):
            found = self.package.find(module, base.id)
            if found is not None and isinstance(found.node, ast.ClassDef):
                self._extend(found.module, found.node)
                return
            if found is not None and found.imported is not None:
                self._add_foreign(f"{found.imported.module}.{found.imported.name or ''}")
                return
            self.is_open |= base.id not in {"object", "Exception"}
            return
        self._add_foreign(self.package.dotted(module, base))

    def _add_foreign(self, name: str) -> None:
        top, last = name.partition(".")[0], name.rpartition(".")[2]
        if top == "exo":
            self.is_engine = True
            self.is_open |= last != "InferenceEngine"  # one of exo's own engines has it all
        elif top not in STANDARD_LIBRARY:
            self.is_open = True

    @cached_property
    def methods(self) -> dict[str, tuple[Module, Function | None]]:
        """Methods and what else the bodies bind, nearest first; None: not a plain function."""
        found: dict[str, tuple[Module, Function | None]] = {}
        for module, node in reversed(self.chain):
            for statement in running(node.body):
                function = statement if isinstance(statement, Function) else None
                for name in [function.name] if function else _bound(statement):
                    found[name] = (module, function)
        self.is_open |= "__getattr__" in found
        return found

    @cached_property
    def functions(self) -> list[tuple[Module, Function]]:
        return [(m, f) for m, f in self.methods.values() if f is not None]

    @cached_property
    def own_attributes(self) -> set[str]:
        """Names that any method of the class assigns to `self`."""
        return {name for _, function in self.functions for name in _assigned(function)}


def _assigned(function: Function) -> set[str]:
    """Names that a method assigns to its own object."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and is_self(node.value, function)
    }


def is_self(node: ast.expr, function: Function) -> bool:
    """Whether an expression is the method's own object."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    return isinstance(node, ast.Name) and bool(arguments) and node.id == arguments[0].arg


def last_name(node: ast.AST) -> str:
    """The name at the end of a name or an attribute; empty for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else str(getattr(node, "id", ""))


def own_nodes(function: Function) -> Iterator[ast.AST]:
    """What runs when the function does: its body, without the bodies of inner functions."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def decorators(function: Function) -> set[str]:
    """The last part of each decorator's name."""
    found = set()
    for node in function.decorator_list:
        node = node.func if isinstance(node, ast.Call) else node
        found.add(node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "?"))
    return found


def is_plain(function: Function) -> bool:
    """Whether the signature is what the source shows: no decorator that could change it."""
    plain = {"staticmethod", "classmethod", "override", "abstractmethod", "property", "final"}
    return decorators(function) <= plain


def parameters(function: Function) -> list[str]:
    """Names of the positional parameters, without `self`."""
    names = [a.arg for a in [*function.args.posonlyargs, *function.args.args]]
    return names if "staticmethod" in decorators(function) else names[1:]


def accepts(function: Function, positional: int, keywords: tuple[str, ...] = ()) -> bool:
    """Whether a method can be called with so many positional arguments and these keywords."""
    args = function.args
    names = parameters(function)
    taken, rest = names[:positional], names[positional:]
    if positional > len(names) and args.vararg is None:
        return False
    only_positional = {a.arg for a in args.posonlyargs}
    by_keyword = (set(rest) - only_positional) | {a.arg for a in args.kwonlyargs}
    if any(k in taken or (k not in by_keyword and args.kwarg is None) for k in keywords):
        return False
    required = names[: len(names) - len(args.defaults)]
    missing = set(required[positional:]) - set(keywords)
    bare = {
        a.arg for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None
    } - set(keywords)
    return not missing and not bare
