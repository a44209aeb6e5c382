"""The value of a constant expression, worked out from its source: no code of the plugin runs."""

import ast
import builtins
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from .files import words
from .source import Module, Package

MAX_STEPS = 100_000
MAX_SIZE = 100_000

_WIDTH = re.compile(r"%[^%sd]")  # anything but plain %s and %d, such as a width of gigabytes

_BUILT_IN = {
    name: getattr(builtins, name)
    for name in words(
        "bool dict enumerate float frozenset int len list max min range reversed set sorted str sum"
        " tuple zip"
    )
}
_METHODS: dict[type, frozenset[str]] = {
    str: words(
        "capitalize format join lower lstrip partition removeprefix removesuffix replace rpartition"
        " rsplit rstrip split splitlines strip title upper"
    ),
    dict: words("get items keys values copy"),
    list: words("copy index"),
    tuple: words("index"),
}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.BitOr: operator.or_,
}
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class UnknownError(Exception):
    """The value can't be told without running the code."""


def value_of(package: Package, module: Module, name: str) -> Any:
    """The value of a module's constant. Raises UnknownError."""
    try:
        return _Evaluator(package).constant(module, name)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as e:
        raise UnknownError(f"{name}: its own code would fail: {e}") from None


def text_of(package: Package, module: Module, node: ast.expr) -> tuple[str, bool]:
    """As much of a text as can be told from its beginning, and whether that is all of it."""
    evaluator = _Evaluator(package)
    if not isinstance(node, ast.JoinedStr):
        try:
            value = evaluator.evaluate(module, node, {})
        except UnknownError:
            return "", False
        return (value, True) if isinstance(value, str) else ("", False)
    text = ""
    for part in node.values:
        try:
            text += str(evaluator.evaluate(module, part, {}))
        except (UnknownError, ArithmeticError, LookupError, TypeError, ValueError):
            return text, False
    return text, True


class _Evaluator:
    def __init__(self, package: Package) -> None:
        self.package = package
        self.steps = 0
        self.active: set[tuple[str, str]] = set()

    def constant(self, module: Module, name: str) -> Any:
        """A name at the top of a module, with the plain changes that follow its definition."""
        if name in {"__package__", "__name__"}:
            return module.name if module.is_package else module.name.rpartition(".")[0]
        definition = self.package.find(module, name)
        if definition is None or (definition.imported is not None):
            raise UnknownError(name)
        module = definition.module
        source = _own_name(module, definition.node, name)
        if (module.name, source) in self.active:
            raise UnknownError(source)
        self.active.add((module.name, source))
        try:
            return self._build(module, source)
        finally:
            self.active.discard((module.name, source))

    def _build(self, module: Module, name: str) -> Any:
        value: Any = _UNSET
        for node in module.changes.get(name, ()):
            value = self._apply(module, node, name, value)
        if value is _UNSET:
            raise UnknownError(name)
        return value

    def _apply(self, module: Module, node: ast.stmt, name: str, value: Any) -> Any:
        match node:
            case ast.Assign(targets=[ast.Name()], value=source):
                return self.evaluate(module, source, {})
            case ast.AnnAssign(target=ast.Name(), value=ast.expr() as source):
                return self.evaluate(module, source, {})
            case ast.Assign(targets=[ast.Subscript(slice=key)], value=source) if isinstance(
                value, dict
            ):
                return value | {self.evaluate(module, key, {}): self.evaluate(module, source, {})}
            case ast.AugAssign(op=ast.BitOr() | ast.Add(), value=source) if value is not _UNSET:
                return self._guard(
                    _OPERATORS[type(node.op)], value, self.evaluate(module, source, {})
                )
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(attr="update"), args=[source], keywords=[])
            ) if isinstance(value, dict):
                return self._guard(operator.or_, value, self.evaluate(module, source, {}))
        raise UnknownError(name)

    def evaluate(self, module: Module, node: ast.expr, names: dict[str, Any]) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise UnknownError("too long")
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise UnknownError(type(node).__name__)
        try:
            value = method(module, node, names)
        except (UnknownError, RecursionError) as error:
            raise UnknownError(str(error)) from None
        return value

    def _guard(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a harmless function; its errors, and values that grow too large, are unknown."""
        if function is operator.mul and not all(
            isinstance(a, int | float) and abs(a) < 1e15 for a in args
        ):
            raise UnknownError("repetition")
        if function is operator.mod and isinstance(args[0], str) and _WIDTH.search(args[0]):
            raise UnknownError("format")
        if function is _BUILT_IN["range"] and any(abs(int(a)) > MAX_SIZE for a in args):
            raise UnknownError("range")
        try:
            value = function(*args, **kwargs)
            size = len(value) if hasattr(value, "__len__") else 0
        except Exception as error:
            raise UnknownError(str(error)) from None
        if size > MAX_SIZE:
            raise UnknownError("too large")
        return value

    def _Constant(self, module: Module, node: ast.Constant, names: dict[str, Any]) -> Any:
        return node.value

    def _Name(self, module: Module, node: ast.Name, names: dict[str, Any]) -> Any:
        return names[node.id] if node.id in names else self.constant(module, node.id)

    def _items(self, module: Module, nodes: list[ast.expr], names: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += self._guard(list, self.evaluate(module, node.value, names))
            else:
                found.append(self.evaluate(module, node, names))
        return found

    def _Tuple(self, module: Module, node: ast.Tuple, names: dict[str, Any]) -> Any:
        return tuple(self._items(module, node.elts, names))

    def _List(self, module: Module, node: ast.List, names: dict[str, Any]) -> Any:
        return self._items(module, node.elts, names)

    def _Set(self, module: Module, node: ast.Set, names: dict[str, Any]) -> Any:
        return self._guard(set, self._items(module, node.elts, names))

    def _Dict(self, module: Module, node: ast.Dict, names: dict[str, Any]) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            evaluated = self.evaluate(module, value, names)
            if key is None:
                found = self._guard(operator.or_, found, evaluated)
            else:
                pair = [(self.evaluate(module, key, names), evaluated)]
                found |= self._guard(dict, pair)
        return found

    def _JoinedStr(self, module: Module, node: ast.JoinedStr, names: dict[str, Any]) -> Any:
        return "".join(str(self.evaluate(module, part, names)) for part in node.values)

    def _FormattedValue(
        self, module: Module, node: ast.FormattedValue, names: dict[str, Any]
    ) -> Any:
        if node.format_spec is not None or node.conversion != -1:
            raise UnknownError("format")
        return str(self.evaluate(module, node.value, names))

    def _BinOp(self, module: Module, node: ast.BinOp, names: dict[str, Any]) -> Any:
        function = _OPERATORS.get(type(node.op))
        if function is None:
            raise UnknownError("operator")
        left = self.evaluate(module, node.left, names)
        return self._guard(function, left, self.evaluate(module, node.right, names))

    def _UnaryOp(self, module: Module, node: ast.UnaryOp, names: dict[str, Any]) -> Any:
        value = self.evaluate(module, node.operand, names)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.USub) and isinstance(value, int | float):
            return -value
        raise UnknownError("operator")

    def _BoolOp(self, module: Module, node: ast.BoolOp, names: dict[str, Any]) -> Any:
        value: Any = None
        for operand in node.values:
            value = self.evaluate(module, operand, names)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _IfExp(self, module: Module, node: ast.IfExp, names: dict[str, Any]) -> Any:
        chosen = node.body if self.evaluate(module, node.test, names) else node.orelse
        return self.evaluate(module, chosen, names)

    def _Compare(self, module: Module, node: ast.Compare, names: dict[str, Any]) -> Any:
        left = self.evaluate(module, node.left, names)
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.evaluate(module, other, names)
            if not self._guard(_COMPARISONS[type(op)], left, right):
                return False
            left = right
        return True

    def _Subscript(self, module: Module, node: ast.Subscript, names: dict[str, Any]) -> Any:
        value = self.evaluate(module, node.value, names)
        key = self.evaluate(module, node.slice, names)
        return self._guard(operator.getitem, value, key)

    def _Slice(self, module: Module, node: ast.Slice, names: dict[str, Any]) -> Any:
        ends = (node.lower, node.upper, node.step)
        return slice(*(e and self.evaluate(module, e, names) for e in ends))

    def _Call(self, module: Module, node: ast.Call, names: dict[str, Any]) -> Any:
        args = self._items(module, node.args, names)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise UnknownError("**")
            kwargs[keyword.arg] = self.evaluate(module, keyword.value, names)
        if isinstance(node.func, ast.Name):
            known = node.func.id in _BUILT_IN and node.func.id not in module.names
            if not known:
                raise UnknownError(node.func.id)
            return self._guard(_BUILT_IN[node.func.id], *args, **kwargs)
        if not isinstance(node.func, ast.Attribute):
            raise UnknownError("call")
        owner = self.evaluate(module, node.func.value, names)
        if node.func.attr not in _METHODS.get(type(owner), frozenset()):
            raise UnknownError(node.func.attr)
        if node.func.attr == "format" and (len(owner) > 500 or ":" in owner or "." in owner):
            raise UnknownError("format")
        return self._guard(getattr(owner, node.func.attr), *args, **kwargs)

    def _rows(
        self, module: Module, generators: list[ast.comprehension], names: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if not generators:
            yield names
            return
        first, *rest = generators
        if first.is_async:
            raise UnknownError("async")
        for item in self._guard(list, self.evaluate(module, first.iter, names)):
            inner = names | self._bind(first.target, item)
            if all(self.evaluate(module, test, inner) for test in first.ifs):
                yield from self._rows(module, rest, inner)

    def _bind(self, target: ast.expr, value: Any) -> dict[str, Any]:
        if isinstance(target, ast.Name):
            return {target.id: value}
        if not isinstance(target, ast.Tuple | ast.List):
            raise UnknownError("target")
        values = self._guard(list, value)
        stars = [n for n, t in enumerate(target.elts) if isinstance(t, ast.Starred)]
        if stars:
            before, after = stars[0], len(target.elts) - stars[0] - 1
            end = len(values) - after
            values = [*values[:before], values[before:end], *values[end:]]
        if len(values) != len(target.elts):
            raise UnknownError("unpacking")
        found: dict[str, Any] = {}
        for part, item in zip(target.elts, values, strict=True):
            found |= self._bind(part.value if isinstance(part, ast.Starred) else part, item)
        return found

    def _ListComp(self, module: Module, node: ast.ListComp, names: dict[str, Any]) -> Any:
        rows = self._rows(module, node.generators, names)
        return [self.evaluate(module, node.elt, row) for row in rows]

    def _GeneratorExp(self, module: Module, node: ast.GeneratorExp, names: dict[str, Any]) -> Any:
        rows = self._rows(module, node.generators, names)
        return [self.evaluate(module, node.elt, row) for row in rows]

    def _SetComp(self, module: Module, node: ast.SetComp, names: dict[str, Any]) -> Any:
        rows = self._rows(module, node.generators, names)
        return self._guard(set, [self.evaluate(module, node.elt, row) for row in rows])

    def _DictComp(self, module: Module, node: ast.DictComp, names: dict[str, Any]) -> Any:
        pairs = [
            (self.evaluate(module, node.key, row), self.evaluate(module, node.value, row))
            for row in self._rows(module, node.generators, names)
        ]
        return self._guard(dict, pairs)


_UNSET = object()


def _own_name(module: Module, node: ast.AST, name: str) -> str:
    """The name that a definition has in its own module, where an import has renamed it."""
    for own, definition in module.names.items():
        if definition.node is node and own == name:
            return own
    return next((n for n, d in module.names.items() if d.node is node), name)
