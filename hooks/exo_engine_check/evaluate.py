"""The value of a constant expression, worked out from its source: no code of the plugin runs."""

import ast
import builtins
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simpleeval import (  # type: ignore[import-untyped]  # it has no types
    DEFAULT_OPERATORS,
    EvalWithCompoundTypes,
)

from .files import words
from .source import Module, Package

MAX_STEPS = 100_000
MAX_SIZE = 100_000

_WIDTH = re.compile(r"%[^%sd]")  # anything but plain %s and %d, such as a width of gigabytes


class UnknownError(Exception):
    """The value can't be told without running the code."""


def _range(*bounds: int) -> range:
    if any(abs(bound) > MAX_SIZE for bound in bounds):
        raise UnknownError("range")
    return range(*bounds)


def _multiplied(a: Any, b: Any) -> Any:
    if not all(isinstance(x, int | float) and abs(x) < 1e15 for x in (a, b)):
        raise UnknownError("repetition")
    return a * b


def _formatted(a: Any, b: Any) -> Any:
    if isinstance(a, str) and _WIDTH.search(a):
        raise UnknownError("format")
    return operator.mod(a, b)


_FUNCTIONS = {
    name: getattr(builtins, name)
    for name in words(
        "bool dict enumerate float frozenset int len list max min reversed set sorted str sum tuple"
        " zip"
    )
} | {"range": _range}
_OPERATORS = {
    kind: function
    for kind, function in DEFAULT_OPERATORS.items()
    if kind not in {ast.LShift, ast.Pow, ast.RShift}
} | {ast.Mod: _formatted, ast.Mult: _multiplied}
_METHODS: dict[type, frozenset[str]] = {
    str: words(
        "capitalize join lower lstrip partition removeprefix removesuffix replace rpartition rsplit"
        " rstrip split splitlines strip title upper"
    ),
    dict: words("get items keys values copy"),
    list: words("copy index"),
    tuple: words("index"),
}


def value_of(package: Package, module: Module, name: str) -> Any:
    """The value of a module's constant. Raises UnknownError."""
    with _failures_are_unknown():
        return _Constants(package).value(module, name)


def text_of(package: Package, module: Module, node: ast.expr) -> tuple[str, bool]:
    """As much of a text as can be told from its beginning, and whether that is all of it."""
    constants, text = _Constants(package), ""
    for part in node.values if isinstance(node, ast.JoinedStr) else [node]:
        try:
            with _failures_are_unknown():
                value = constants.evaluate(module, part)
        except UnknownError:
            return text, False
        if part is node and not isinstance(value, str):
            return "", False
        text += str(value)
    return text, True


@contextmanager
def _failures_are_unknown() -> Iterator[None]:
    """What simpleeval refuses, and what the plugin's own code would raise."""
    try:
        yield
    except UnknownError:
        raise
    except Exception as error:
        raise UnknownError(str(error)) from None


class _Constants:
    """The constants of a package, with one limit for all the work."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.steps = 0
        self.active: set[tuple[str, str]] = set()

    def value(self, module: Module, name: str) -> Any:
        """A name at the top of a module, with the plain changes that follow its definition."""
        if name in {"__package__", "__name__"}:
            return module.name if module.is_package else module.name.rpartition(".")[0]
        definition = self.package.find(module, name)
        if definition is None or definition.imported is not None:
            raise UnknownError(name)
        module = definition.module
        own = _own_name(module, definition.node, name)
        if (module.name, own) in self.active:
            raise UnknownError(own)
        self.active.add((module.name, own))
        try:
            return self._build(module, own)
        finally:
            self.active.discard((module.name, own))

    def evaluate(self, module: Module, node: ast.expr) -> Any:
        """An expression at the top of a module."""
        return _Expression(self, module).eval("", node)

    def _build(self, module: Module, name: str) -> Any:
        value: Any = _UNSET
        for node in module.changes.get(name, ()):
            value = self._changed(module, node, value)
        if value is _UNSET:
            raise UnknownError(name)
        return value

    def _changed(self, module: Module, node: ast.stmt, value: Any) -> Any:
        """What a constant is after a statement."""
        match node:
            case ast.Assign(targets=[ast.Name()], value=source):
                return self.evaluate(module, source)
            case ast.AnnAssign(target=ast.Name(), value=ast.expr() as source):
                return self.evaluate(module, source)
            case ast.Assign(targets=[ast.Subscript(slice=key)], value=source):
                return value | {self.evaluate(module, key): self.evaluate(module, source)}
            case ast.AugAssign(op=ast.BitOr() | ast.Add() as op, value=source):
                return DEFAULT_OPERATORS[type(op)](value, self.evaluate(module, source))
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(attr="update"), args=[source], keywords=[])
            ):
                return value | self.evaluate(module, source)
        raise UnknownError(ast.unparse(node))


class _Expression(EvalWithCompoundTypes):  # type: ignore[misc]  # simpleeval has no types
    """An expression of one module, in so many steps and values of such sizes."""

    def __init__(self, constants: _Constants, module: Module) -> None:
        super().__init__(
            operators=_OPERATORS,
            names=lambda node: constants.value(module, node.id),
            allowed_attrs=_METHODS,
        )
        self.constants = constants
        self.functions = {name: f for name, f in _FUNCTIONS.items() if name not in module.names}
        self.nodes[ast.SetComp] = lambda node: set(self._eval_comprehension(node))

    def _eval(self, node: ast.AST) -> Any:
        self.constants.steps += 1
        if self.constants.steps > MAX_STEPS:
            raise UnknownError("too long")
        value = super()._eval(node)
        if hasattr(value, "__len__") and len(value) > MAX_SIZE:
            raise UnknownError("too large")
        return value

    def _eval_formattedvalue(self, node: ast.FormattedValue) -> Any:
        if node.format_spec is not None or node.conversion != -1:
            raise UnknownError("format")
        return self._eval(node.value)


_UNSET = object()


def _own_name(module: Module, node: ast.AST, name: str) -> str:
    """The name that a definition has in its own module, where an import has renamed it."""
    if name in module.names and module.names[name].node is node:
        return name
    return next((n for n, d in module.names.items() if d.node is node), name)
