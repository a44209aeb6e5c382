"""The plugin's package, read by `ast`: its imports, its names, its classes. Nothing is imported."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .files import UnreadableError, words
from .findings import Place

Function = ast.FunctionDef | ast.AsyncFunctionDef
_CATCHERS = words("BaseException Exception ImportError ModuleNotFoundError")
_MAKERS = words("exec globals setattr vars")


@dataclass(frozen=True)
class Import:
    """One imported name: `module` whole, or `name` of it."""

    module: str
    name: str | None
    line: int
    runs: bool  # when its module is imported, not later in a function
    tried: bool  # its failure is expected

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(eq=False)
class Module:
    """One file of the package."""

    name: str
    path: str
    text: str
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
                return ast.parse(self.text)
        except SyntaxError as error:
            self.problem = f"is no Python: {error.msg}"
            self.problem_line = error.lineno or 0
        except (ValueError, RecursionError, MemoryError) as error:
            self.problem = f"can't be parsed: {str(error) or type(error).__name__}"
        return ast.Module([], [])

    def place(self, node: ast.AST) -> Place:
        return Place(self.path, getattr(node, "lineno", 0))

    @cached_property
    def imports(self) -> list[Import]:
        """All imports but those for type checkers, of functions too."""
        found: list[Import] = []
        for node, runs, tried in statements(self.tree.body):
            if isinstance(node, ast.Import):
                found += [Import(a.name, None, node.lineno, runs, tried) for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = self.absolute(node)
                found += [Import(source, a.name, node.lineno, runs, tried) for a in node.names]
        return found

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that `from … import` names."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        base = parts[: max(len(parts) - node.level + self.is_package, 0)]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def names(self) -> dict[str, ast.stmt]:
        """The names at the top, each with the first statement that binds it."""
        found: dict[str, ast.stmt] = {}
        for node, runs, _ in statements(self.tree.body, classes=False):
            for name in _bound(node) if runs else ():
                found.setdefault(name, node)
        return found

    @cached_property
    def is_open(self) -> bool:
        """Whether the module may have names that its source doesn't spell at the top."""
        return "__getattr__" in self.names or any(
            isinstance(node, ast.Global)
            or (isinstance(node, ast.Call) and getattr(node.func, "id", "") in _MAKERS)
            for node in ast.walk(self.tree)
        )


def statements(body: list[ast.stmt], classes: bool = True) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Every statement in order, whether an import runs it, and whether its failure is expected."""
    pending: list[tuple[ast.AST, bool, bool]] = [(node, True, False) for node in reversed(body)]
    while pending:
        node, runs, tried = pending.pop()
        if isinstance(node, ast.stmt):
            yield node, runs, tried
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            inner: list[ast.AST] = [*node.orelse]
        elif isinstance(node, ast.ClassDef) and not classes:
            inner = []
        else:
            kinds = (ast.stmt, ast.ExceptHandler, ast.match_case)
            inner = [part for part in ast.iter_child_nodes(node) if isinstance(part, kinds)]
        later = runs and not isinstance(node, Function)
        inside = set(node.body) if _expects_failure(node) else set()  # type: ignore[attr-defined]  # a try or with
        pending += [(part, later, tried or part in inside) for part in reversed(inner)]


def _expects_failure(node: ast.AST) -> bool:
    if isinstance(node, ast.Try | ast.TryStar):
        caught = [ast.dump(h.type) if h.type else "Exception" for h in node.handlers]
        return any(f"'{name}'" in text or text == name for text in caught for name in _CATCHERS)
    return isinstance(node, ast.With) and any("'suppress'" in ast.dump(i) for i in node.items)


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds by itself."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or (
                alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name
            )
    elif not isinstance(node, ast.AnnAssign) or node.value is not None:
        parts = (p for p in ast.iter_child_nodes(node) if not isinstance(p, ast.stmt))
        for part in (inner for p in parts for inner in ast.walk(p)):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id


class Package:
    """The modules by their dotted names."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}

    def add(self, name: str, path: str, source: str | UnreadableError) -> None:
        if isinstance(source, UnreadableError):
            self.modules[name] = Module(name, path, "", str(source))
        else:
            self.modules[name] = Module(name, path, source)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    @cached_property
    def folders(self) -> set[str]:
        """Every name that modules stand below: packages, with an `__init__.py` or without."""
        parts = (name.split(".") for name in self.modules)
        return {".".join(names[:n]) for names in parts for n in range(1, len(names))}

    def find(
        self, module: Module, name: str, depth: int = 20
    ) -> tuple[Module, ast.stmt] | str | None:
        """The definition of a name, through re-exports; a text: it is outside; None: not there."""
        node = module.names.get(name)
        if isinstance(node, ast.ImportFrom):
            alias = next(a for a in node.names if (a.asname or a.name) == name)
            source = self.modules.get(module.absolute(node))
            if source is None or not depth or f"{source.name}.{alias.name}" in self.modules:
                return f"{module.absolute(node)}.{alias.name}"
            return self.find(source, alias.name, depth - 1)
        if node is not None:
            return module, node
        for star in (i for i in module.imports if i.name == "*" and i.runs):
            source = self.modules.get(star.module)
            if source is None or source is module or not depth:
                return f"{star.module}.*"
            if (found := self.find(source, name, depth - 1)) is not None:
                return found
        open_ = module.is_open or module.problem or f"{module.name}.{name}" in self.modules
        return f"{module.name}.*" if open_ else None

    def loaded_with(self, names: list[str]) -> list[Module]:
        """The modules that importing these brings, of the package."""
        found: dict[str, Module] = {}
        pending = list(names)
        while pending:
            name = pending.pop()
            parts = name.split(".")
            for whole in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
                module = self.modules.get(whole)
                if module is None or whole in found:
                    continue
                found[whole] = module
                for i in module.imports:
                    if i.runs:
                        pending += [i.module, f"{i.module}.{i.name}" if i.name else i.module]
        return list(found.values())


class Class:
    """A class, with what it inherits from the package's own classes."""

    def __init__(self, package: Package, module: Module, node: ast.ClassDef) -> None:
        self.module, self.node = module, node
        self.methods: dict[str, tuple[Module, ast.stmt]] = {}
        self.is_engine = False
        self.is_open = False  # a base of somebody else's may have any method
        self.classes: list[tuple[Module, ast.ClassDef]] = []
        self._take(package, module, node)

    @property
    def place(self) -> Place:
        return self.module.place(self.node)

    def _take(self, package: Package, module: Module, node: ast.ClassDef) -> None:
        self.classes.append((module, node))
        self.is_open |= bool(node.keywords or node.decorator_list)
        for statement, _, _ in statements(node.body):
            for name in _bound(statement):
                self.methods.setdefault(name, (module, statement))
        for base in node.bases:
            named = base.value if isinstance(base, ast.Subscript) else base
            found = None
            if isinstance(named, ast.Name):
                found = package.find(module, named.id)
            dotted = found if isinstance(found, str) else ast.unparse(named)
            if isinstance(found, tuple) and isinstance(found[1], ast.ClassDef):
                if all(found[1] is not known for _, known in self.classes):
                    self._take(package, found[0], found[1])
            elif dotted.endswith("InferenceEngine") and isinstance(found, str | None):
                self.is_engine = True
                self.is_open |= not dotted.startswith("exo.")
            elif dotted not in {"object", "ABC", "abc.ABC", "Protocol", "Generic"}:
                self.is_open = True

    def method(self, name: str) -> tuple[Module, Function] | None:
        """A method that the source spells out; None: not there, or made in another way."""
        module, node = self.methods.get(name, (None, None))
        return (module, node) if module and isinstance(node, Function) else None

    def functions(self) -> Iterator[tuple[Module, Function]]:
        """Every method of the class and of its own bases."""
        for module, node in self.classes:
            for part in node.body:
                if isinstance(part, Function):
                    yield module, part
