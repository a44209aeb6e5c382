"""The value of a constant expression, worked out from its source: no code of the plugin runs."""

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from simpleeval import (  # type: ignore[import-untyped]  # it has no types
    DEFAULT_OPERATORS,
    EvalWithCompoundTypes,
)

from .files import words
from .source import Module, Package, last_name

MAX_STEPS = 100_000
MAX_SIZE = 100_000
MAX_WEIGHT = 1_000_000  # of a whole constant, written out

_SCALAR = str | int | float | None
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
    if isinstance(a, int | float):
        return a % b
    if not isinstance(a, str) or _WIDTH.search(a):
        raise UnknownError("format")
    values = b if isinstance(b, tuple) else (b,)
    if not all(isinstance(value, _SCALAR) for value in values):
        raise UnknownError("format")
    return a % values


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of two of which one is small."""

    def checked(a: Any, b: Any) -> bool:
        if not (isinstance(a, _SCALAR) or isinstance(b, _SCALAR)):
            raise UnknownError("comparison")
        return compare(a, b)

    return checked


def _text(value: Any = "") -> str:
    if not isinstance(value, _SCALAR):
        raise UnknownError("text")
    return str(value)


def _sum(values: Iterable[Any], start: Any = 0) -> Any:
    """Of numbers: nothing else can be added to 0."""
    return sum([*values, start])


def _check_length(length: int) -> None:
    if length > MAX_SIZE:
        raise UnknownError("too large")


_FUNCTIONS: dict[str, Any] = {
    name: getattr(builtins, name)
    for name in words(
        "bool dict enumerate float frozenset int len list max min reversed set sorted tuple zip"
    )
} | {"range": _range, "str": _text, "sum": _sum}
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_OPERATORS = {
    kind: _compared(function) if kind in _COMPARISONS else function
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
    """The value of a module's constant, worked out once. Raises UnknownError."""
    key = (module.name, name)
    if key not in package.values:
        try:
            with _failures_are_unknown():
                package.values[key] = _Constants(package).value(module, name)
        except UnknownError:
            package.values[key] = _UNSET
    if package.values[key] is _UNSET:
        raise UnknownError(name)
    return package.values[key]


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
        self.finished: dict[tuple[str, str], Any] = {}

    def value(self, module: Module, name: str, at: tuple[int, int] | None = None) -> Any:
        """A name at the top of a module, as it is at the end or where an expression uses it."""
        if name == "__name__":
            return module.name
        if name == "__package__":
            return module.name if module.is_package else module.name.rpartition(".")[0]
        definition = self.package.find(module, name)
        if definition is None or definition.imported is not None:
            raise UnknownError(name)
        changes = module.changes.get(name, [])
        later = at and changes and (changes[-1].lineno, changes[-1].col_offset) > at
        if later or (len(changes) > 1 and definition.module is not module):
            raise UnknownError(name)
        key = definition.module.name, definition.name
        if key not in self.finished:
            self.finished[key] = _UNSET  # while it is being made
            self.finished[key] = self._build(definition.module, definition.name)
        if self.finished[key] is _UNSET:
            raise UnknownError(name)
        return self.finished[key]

    def evaluate(self, module: Module, node: ast.expr) -> Any:
        """An expression at the top of a module."""
        return _Expression(self, module).eval("", node)

    def charge(self, value: Any) -> None:
        """Count a step, and the work that a value of such a size is to what comes next."""
        size = len(value) if hasattr(value, "__len__") else 0
        _check_length(size)
        self.steps += 1 + size // 64
        if self.steps > MAX_STEPS:
            raise UnknownError("too long")

    def _build(self, module: Module, name: str) -> Any:
        """The plain changes of a name, one after the other."""
        if not self.package.is_settled(module, name):
            raise UnknownError(name)
        value: Any = _UNSET
        for node in module.changes.get(name, ()):
            value = self._changed(module, name, node, value)
        _check_weight(value)
        return value

    def _changed(self, module: Module, name: str, node: ast.stmt, value: Any) -> Any:
        """What a constant is after a statement that changes it itself, and no part of it."""
        match node:
            case ast.Assign(targets=[ast.Name(id=own)], value=source) if own == name:
                return self.evaluate(module, source)
            case ast.AnnAssign(target=ast.Name(id=own), value=ast.expr() as source) if own == name:
                return self.evaluate(module, source)
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name(id=own), slice=key)], value=source
            ) if own == name:
                return value | {self.evaluate(module, key): self.evaluate(module, source)}
            case ast.AugAssign(
                target=ast.Name(id=own), op=ast.BitOr() | ast.Add() as op, value=source
            ) if own == name:
                return DEFAULT_OPERATORS[type(op)](value, self.evaluate(module, source))
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id=own), attr="update"),
                    args=[source],
                    keywords=[],
                )
            ) if own == name:
                return value | self.evaluate(module, source)
        raise UnknownError(name)


class _Expression(EvalWithCompoundTypes):  # type: ignore[misc]  # simpleeval has no types
    """An expression of one module, in so many steps and values of such sizes."""

    def __init__(self, constants: _Constants, module: Module) -> None:
        super().__init__(
            operators=_OPERATORS,
            names=lambda node: constants.value(module, node.id, (node.lineno, node.col_offset)),
            allowed_attrs=_METHODS,
        )
        self.constants = constants
        self.functions = {name: f for name, f in _FUNCTIONS.items() if name not in module.names}
        self.nodes[ast.SetComp] = lambda node: set(self._eval_comprehension(node))

    def _eval(self, node: ast.AST) -> Any:
        value = super()._eval(node)
        self.constants.charge(value)
        return value

    def _check_disallowed_items(self, item: Any) -> None:
        """Nothing to look for: names lead to values alone, and calls to `_FUNCTIONS`."""

    def _eval_call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            function = self._eval(node.func)
        else:
            function = self.functions[last_name(node.func)]
        given = [self._eval(argument) for argument in node.args]
        if last_name(node.func) in {"join", "replace"}:  # the text may grow by as much
            parts = given[0] if last_name(node.func) == "join" else given
            longest = len(parts) + sum(map(len, parts))
            _check_length((len(function.__self__) + 1) * longest)
        return function(*given, **dict(map(self._eval, node.keywords)))

    def _eval_formattedvalue(self, node: ast.FormattedValue) -> str:
        if node.format_spec is not None or node.conversion != -1:
            raise UnknownError("format")
        return _text(self._eval(node.value))


_UNSET = object()


def _check_weight(value: Any) -> None:
    """Refuse what is no plain value, or too long written out: its parts may be one and the same."""
    pending, weight = [value], 0
    while pending:
        part = pending.pop()
        weight += 1 + (len(part) if isinstance(part, str | bytes) else 0)
        if weight > MAX_WEIGHT:
            raise UnknownError("too large")
        if isinstance(part, dict):
            pending += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
        elif not isinstance(part, _SCALAR | bytes | range):
            raise UnknownError(type(part).__name__)
