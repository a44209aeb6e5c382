"""EX5: the device detectors."""

import ast
import builtins
import re
from collections.abc import Iterator

from .. import host
from ..findings import Check, Finding, reports
from ..plugin import Plugin
from ..source import (
    STANDARD_LIBRARY,
    Definition,
    Function,
    Module,
    is_plain,
    last_name,
    own_nodes,
)
from .engine import waits


class Detection(Check):
    family = "exo-detection"


def _detectors(plugin: Plugin) -> Iterator[tuple[Module, Function]]:
    for entry in plugin.in_group(host.GROUP_DETECTORS):
        definition = plugin.target(entry).definition
        if definition and isinstance(definition.node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield definition.module, definition.node


class EX501(Detection):
    "The detector is called without arguments"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo's type of a detector is `Callable[[], Optional[str]]` (plugin_discovery.py:124): a
        required parameter is a TypeError, and a coroutine is no answer. Write a plain function
        whose parameters have defaults.
        """
        for module, function in _detectors(exo_plugin):
            args = function.args
            count = len(args.posonlyargs) + len(args.args) - len(args.defaults)
            bare = any(default is None for default in args.kw_defaults)
            if isinstance(function, ast.AsyncFunctionDef):
                yield Finding(module.place(function), f"{function.name}() is async")
            if (count > 0 or bare) and is_plain(function):
                yield Finding(module.place(function), f"{function.name}() needs arguments")


class EX502(Detection):
    "The detector gives a name or None"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo's type is `Optional[str]` (plugin_discovery.py:124). A bool says that there is a device
        and not which. Return the device's name, or None where there is none.
        """
        for module, function in _detectors(exo_plugin):
            said = ast.unparse(function.returns) if function.returns else ""
            if re.search(r"\b(bool|bytes|dict|float|int|list|set|tuple)\b", said):
                place = module.place(function)
                yield Finding(place, f"{function.name}() returns {said}, not str | None")
                continue
            for node in own_nodes(function):
                if isinstance(node, ast.Return) and _is_no_name(node.value):
                    assert node.value is not None
                    message = f"{function.name}() returns {ast.unparse(node.value)}, no name"
                    yield Finding(module.place(node), message)


def _is_no_name(value: ast.expr | None) -> bool:
    """Whether an expression is surely no text and not None."""
    if isinstance(value, ast.Constant):
        return not isinstance(value.value, str | None)
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    if isinstance(value, ast.Call):
        return getattr(value.func, "attr", "") in {
            "exists",
            "is_file",
            "is_dir",
            "is_available",
        } or (getattr(value.func, "id", "") in {"bool", "int", "any", "all"})
    return isinstance(value, ast.Compare | ast.List | ast.Dict | ast.Set | ast.Tuple)


class EX503(Detection):
    "The detector catches its own errors"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A detector runs on machines that lack the device, its drivers and its SDK, and exo hands it
        on as it is (plugin_discovery.py:138): an error there is an error of whoever asks. Catch
        what the call can raise, `OSError` for files and `Exception` for an SDK, and return None.
        """
        for module, function in _detectors(exo_plugin):
            yield from _uncaught(exo_plugin, module, function, frozenset(), {function})


_FILE_CALLS = {"open", "read_text", "read_bytes", "iterdir", "listdir", "stat", "scandir"}
_PROGRAM_CALLS = {"run", "check_output", "check_call", "call", "Popen"}


def _uncaught(
    plugin: Plugin, module: Module, node: ast.AST, caught: frozenset[str], seen: set[Function]
) -> Iterator[Finding]:
    """Risky statements below a node that no handler around them answers to."""
    if isinstance(node, ast.Try):
        inner = caught.union(*(_caught(plugin, module, kind) for kind in _handled(node)))
        for statement in node.body:
            yield from _uncaught(plugin, module, statement, inner, seen)
        for other in [*node.handlers, *node.orelse, *node.finalbody]:
            yield from _uncaught(plugin, module, other, caught, seen)
        return
    if isinstance(node, ast.With):
        caught = caught.union(*(_caught(plugin, module, kind) for kind in _suppressed(node)))
    danger = _danger(plugin, module, node, caught)
    if danger:
        yield Finding(module.place(node), danger)
    for source, helper in _helpers(plugin, module, node, seen):
        for statement in helper.body:
            yield from _uncaught(plugin, source, statement, caught, seen)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _uncaught(plugin, module, child, caught, seen)


def _helpers(
    plugin: Plugin, module: Module, node: ast.AST, seen: set[Function]
) -> Iterator[tuple[Module, Function]]:
    """The plugin's own function that a node calls, once."""
    found = _definition(plugin, module, node.func) if isinstance(node, ast.Call) else None
    if found and isinstance(found.node, ast.FunctionDef) and found.node not in seen:
        seen.add(found.node)
        yield found.module, found.node


def _definition(plugin: Plugin, module: Module, node: ast.expr) -> Definition | None:
    """What a name stands for, or an attribute of one of the plugin's own modules."""
    if isinstance(node, ast.Name):
        return plugin.package.find(module, node.id)
    owner, _, name = plugin.package.dotted(module, node).rpartition(".")
    source = plugin.package.modules.get(owner)
    return plugin.package.find(source, name) if source else None


def _danger(plugin: Plugin, module: Module, node: ast.AST, caught: frozenset[str]) -> str:
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        kind = _exception(last_name(raised) if raised else "")
        answered = _answers(caught, kind) if kind else bool(caught)
        return "" if answered else "this is raised"
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
        foreign = not getattr(node, "level", 0) and any(_is_foreign(plugin, n) for n in names)
        missing = foreign and not _answers(caught, ModuleNotFoundError)
        return f"{names[0]} may be missing" if missing else ""
    if not isinstance(node, ast.Call):
        return ""
    dotted = plugin.package.dotted(module, node.func)
    last = last_name(node.func)
    if _is_foreign(plugin, dotted) and not isinstance(node.func, ast.Name | ast.Subscript):
        own = f"{dotted.partition('.')[0]}." in caught
        answered = own or _answers(caught, Exception)
        return "" if answered else f"{dotted}() may raise what is not caught here"
    if last in _PROGRAM_CALLS and dotted.startswith("subprocess."):
        return "" if _answers(caught, FileNotFoundError) else f"{dotted}() may find no program"
    if last in _FILE_CALLS and _is_file_call(dotted, node.func):
        answered = _answers(caught, FileNotFoundError, PermissionError)
        return "" if answered else f"{last}() may raise OSError"
    return ""


def _is_file_call(dotted: str, function: ast.expr) -> bool:
    top = dotted.partition(".")[0]
    if isinstance(function, ast.Name):
        return function.id == "open"
    return top in {"", "os", "pathlib", "io"} or top not in STANDARD_LIBRARY


def _is_foreign(plugin: Plugin, dotted: str) -> bool:
    top = dotted.partition(".")[0]
    mine = plugin.package.owns(dotted) or top in STANDARD_LIBRARY or hasattr(builtins, top)
    return bool(top) and not mine


def _exception(name: str) -> type[BaseException] | None:
    """Python's own exception of a name."""
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None


def _answers(caught: frozenset[str], *raised: type[BaseException]) -> bool:
    """Whether what is caught has all these among it."""
    kinds = tuple(kind for kind in map(_exception, caught) if kind)
    return "" in caught or all(issubclass(kind, kinds) for kind in raised)


def _handled(node: ast.Try) -> Iterator[ast.expr | None]:
    """The types of the handlers, without those that raise again."""
    for handler in node.handlers:
        if not any(isinstance(n, ast.Raise) and n.exc is None for n in handler.body):
            yield handler.type


def _suppressed(node: ast.With) -> Iterator[ast.expr]:
    """The types that `contextlib.suppress` is given."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and last_name(call.func) == "suppress":
            yield from call.args


def _caught(plugin: Plugin, module: Module, node: ast.expr | None, depth: int = 8) -> set[str]:
    """Names of exceptions, and of their libraries with a dot behind; '' where that can't be told.

    A constant of the plugin stands for what it is.
    """
    parts: list[ast.expr] = []
    if isinstance(node, ast.Tuple):
        parts = node.elts
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    if parts:
        return set().union(*(_caught(plugin, module, part, depth) for part in parts))
    found = _definition(plugin, module, node) if node else None
    if depth and found and isinstance(found.node, ast.Assign | ast.AnnAssign):
        return _caught(plugin, found.module, found.node.value, depth - 1)
    dotted = plugin.package.dotted(module, node) if node else ""
    if node is None or not (found or dotted):
        return {""}
    return {last_name(node), f"{dotted.partition('.')[0]}."}


class EX504(Detection):
    "The detector answers at once"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A detector is asked when a node starts, on every machine (plugin_discovery.py:124). One that
        sleeps, asks the network or waits for a program without a limit holds that up. Read a file
        of the system, or give the program a `timeout` of a second.
        """
        for module, function in _detectors(exo_plugin):
            for where, call in _calls(exo_plugin, module, function, {function}):
                name = exo_plugin.package.dotted(where, call.func)
                if waits(name) and not _is_limited(name, call):
                    yield Finding(where.place(call), f"{name}() may take long")


def _calls(
    plugin: Plugin, module: Module, function: Function, seen: set[Function]
) -> Iterator[tuple[Module, ast.Call]]:
    """The calls of a function, and of those of the plugin's own functions that it calls."""
    for node in own_nodes(function):
        if isinstance(node, ast.Call):
            yield module, node
        for source, helper in _helpers(plugin, module, node, seen):
            yield from _calls(plugin, source, helper, seen)


_TIMEOUTS = {"socket.create_connection": 1, "urllib.request.urlopen": 2}  # by position


def _is_limited(name: str, call: ast.Call) -> bool:
    """Whether a call may have a timeout that is not None."""
    given = [k.value for k in call.keywords if k.arg in {"timeout", None}]
    given += call.args[_TIMEOUTS.get(name, len(call.args)) :]
    return any(not isinstance(value, ast.Constant) or value.value is not None for value in given)
