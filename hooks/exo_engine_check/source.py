"""The plugin's package, read by `ast`: its imports, its names, its classes. Nothing is imported."""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .files import words
from .report import Place

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # where statements have others
_CATCHERS = words("BaseException Exception ImportError ModuleNotFoundError")


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
    data: bytes = b""
    problem: str = ""
    problem_line: int = 0

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree, empty where the file can't be parsed; then `problem` says why."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.data)
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
        imports: list[Import] = []
        for node, runs, tried in _statements(self.tree.body):
            if isinstance(node, ast.Import):
                imports += [Import(a.name, None, node.lineno, runs, tried) for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = self.absolute(node)
                imports += [Import(source, a.name, node.lineno, runs, tried) for a in node.names]
        return imports

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that `from … import` names."""
        parts = self.name.split(".") if node.level else []
        inside = node.level - self.path.endswith("__init__.py")
        base = parts[: len(parts) - inside]
        return ".".join([*base, *([node.module] if node.module else [])])

    @cached_property
    def names(self) -> dict[str, ast.stmt]:
        """The names at the top, each with the first statement that binds it."""
        names: dict[str, ast.stmt] = {}
        for node, runs, _ in _statements(self.tree.body, classes=False):
            for name in _bound(node) if runs else ():
                names.setdefault(name, node)
        return names

    @cached_property
    def is_open(self) -> bool:
        """Whether the module may have names that don't stand at the top of its source."""
        called = (getattr(n, "func", None) for n in ast.walk(self.tree))
        makes = any(getattr(f, "id", "") in {"exec", "globals", "setattr", "vars"} for f in called)
        return bool(makes or self.problem) or bool({"__getattr__", "*"} & self.names.keys())


def _statements(
    body: list[ast.stmt], classes: bool = True
) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Every statement in order, whether an import runs it, and whether its failure is expected."""
    pending: list[tuple[ast.AST, bool, bool]] = [(node, True, False) for node in reversed(body)]
    while pending:
        node, runs, tried = pending.pop()
        if isinstance(node, ast.stmt):
            yield node, runs, tried
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            inner: list[ast.AST] = [*node.orelse]
        elif isinstance(node, ast.ClassDef) and not classes:
            inner = []
        else:
            inner = [part for blocks in _BLOCKS for part in getattr(node, blocks, ())]
        later = runs and not isinstance(node, Function)
        inside = set(node.body) if _expects_failure(node) else set()  # type: ignore[attr-defined]  # a try or with
        pending += [(part, later, tried or part in inside) for part in reversed(inner)]


def _name(node: ast.AST) -> str:
    """The name that an expression is, without the module before it."""
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _expects_failure(node: ast.AST) -> bool:
    if isinstance(node, ast.Try | ast.TryStar):
        caught = [ast.dump(h.type) if h.type else "'Exception'" for h in node.handlers]
        return any(f"'{name}'" in text for text in caught for name in _CATCHERS)
    return isinstance(node, ast.With) and any("'suppress'" in ast.dump(i) for i in node.items)


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds by itself."""
    if isinstance(node, Function | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (a.asname or a.name.partition(".")[0] for a in node.names)
    elif not isinstance(node, ast.AnnAssign) or node.value is not None:
        parts = (p for p in ast.iter_child_nodes(node) if not isinstance(p, ast.stmt))
        for part in (inner for p in parts for inner in ast.walk(p)):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                yield part.id


class Package:
    """The modules by their dotted names."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def find(self, name: str, attribute: str) -> tuple[Module, ast.stmt] | str:
        """The definition of a module's name, through re-exports, or where it would have to be."""
        for _ in range(20):
            module = self.modules.get(name)
            node = module.names.get(attribute) if module else None
            if module is None or node is None:
                break
            if not isinstance(node, ast.ImportFrom):
                return module, node
            [alias] = [a for a in node.names if (a.asname or a.name) == attribute]
            name, attribute = module.absolute(node), alias.name
        return f"{name}.{attribute}"

    def loaded_with(self, names: list[str]) -> list[Module]:
        """The modules that importing these brings, of the package."""
        loaded: dict[str, Module] = {}
        pending = list(names)
        while pending:
            parts = pending.pop().split(".")
            for whole in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
                if whole in self.modules and whole not in loaded:
                    loaded[whole] = self.modules[whole]
                    for i in (i for i in loaded[whole].imports if i.runs):
                        pending += [i.module, f"{i.module}.{i.name}"]
        return list(loaded.values())


class Class:
    """A class, with what it inherits from the package's own classes."""

    def __init__(self, package: Package, module: Module, node: ast.ClassDef) -> None:
        self.name, self.place = node.name, module.place(node)
        self.methods: dict[str, tuple[Module, ast.stmt]] = {}
        self.is_engine = False
        self.is_open = False  # a base of somebody else's may have any method
        self._nodes: dict[ast.ClassDef, list[tuple[Module, ast.AST]]] = {}
        self._take(package, module, node)

    def _take(self, package: Package, module: Module, node: ast.ClassDef) -> None:
        functions = [part for part in node.body if isinstance(part, Function)]
        self._nodes[node] = [(module, part) for f in functions for part in ast.walk(f)]
        self.is_open |= bool(node.keywords or node.decorator_list)
        for statement, _, _ in _statements(node.body):
            for name in _bound(statement):
                self.methods.setdefault(name, (module, statement))
        for base in node.bases:
            dotted = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            definition = package.find(module.name, dotted)
            if not isinstance(definition, str) and isinstance(definition[1], ast.ClassDef):
                if definition[1] not in self._nodes:
                    self._take(package, definition[0], definition[1])
            elif dotted.endswith("InferenceEngine"):
                self.is_engine = True
                self.is_open |= not (isinstance(definition, str) and definition.startswith("exo."))
            elif dotted not in {"object", "ABC", "abc.ABC", "Protocol", "Generic"}:
                self.is_open = True

    def method(self, name: str) -> tuple[Module, Function] | None:
        """A method that stands in the source; None: not there, or made in another way."""
        module, node = self.methods.get(name, (None, None))
        return (module, node) if module and isinstance(node, Function) else None

    @cached_property
    def calls(self) -> list[tuple[Module, ast.Call]]:
        """All calls in its methods and in those of its own bases."""
        nodes = [each for of_class in self._nodes.values() for each in of_class]
        return [(module, node) for module, node in nodes if isinstance(node, ast.Call)]

    @cached_property
    def stored(self) -> set[str]:
        """The attributes that its methods assign."""
        nodes = [node for of_class in self._nodes.values() for _, node in of_class]
        stores = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
        return {node.attr for node in stores}
