"""EX5: the device detectors."""

import ast
import builtins
import re
from collections.abc import Iterator

from .. import host
from ..findings import Check, Finding, reports
from ..plugin import Plugin
from ..source import STANDARD_LIBRARY, Function, Module, is_plain, last_name, own_nodes


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
            yield from _uncaught(exo_plugin, module, function, frozenset(), {function.name})


_EVERYTHING = frozenset({"Exception", "BaseException", ""})
_FILE_CALLS = {"open", "read_text", "read_bytes", "iterdir", "listdir", "stat", "scandir"}
_PROCESS_CALLS = {"run", "check_output", "check_call", "call", "Popen"}


def _uncaught(
    plugin: Plugin, module: Module, node: ast.AST, caught: frozenset[str], seen: set[str]
) -> Iterator[Finding]:
    """Risky statements below a node that no handler around them answers to."""
    if isinstance(node, ast.Try):
        inner = caught | _caught(node)
        for statement in node.body:
            yield from _uncaught(plugin, module, statement, inner, seen)
        for other in [*node.handlers, *node.orelse, *node.finalbody]:
            yield from _uncaught(plugin, module, other, caught, seen)
        return
    if isinstance(node, ast.With) and any(_suppresses(item) for item in node.items):
        names = [a for item in node.items if _suppresses(item) for a in _arguments(item)]
        caught = caught | {last_name(name) for name in names}
    danger = _danger(plugin, module, node, caught)
    if danger:
        yield Finding(module.place(node), danger)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in seen:
        found = plugin.package.find(module, node.func.id)
        if found and isinstance(found.node, ast.FunctionDef):
            seen.add(node.func.id)
            for statement in found.node.body:
                yield from _uncaught(plugin, found.module, statement, caught, seen)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _uncaught(plugin, module, child, caught, seen)


def _danger(plugin: Plugin, module: Module, node: ast.AST, caught: frozenset[str]) -> str:
    if caught & _EVERYTHING:
        return ""
    if isinstance(node, ast.Raise) and not (caught and node.exc is None):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return "" if raised is not None and last_name(raised) in caught else "this is raised"
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
        foreign = not getattr(node, "level", 0) and any(_is_foreign(plugin, n) for n in names)
        return f"{names[0]} may be missing" if foreign and "ImportError" not in caught else ""
    if not isinstance(node, ast.Call):
        return ""
    dotted = plugin.package.dotted(module, node.func)
    last = last_name(node.func)
    if (
        dotted
        and _is_foreign(plugin, dotted)
        and not isinstance(node.func, ast.Name | ast.Subscript)
    ):
        return f"{dotted}() may raise what is not caught here"
    if last in _PROCESS_CALLS and dotted.startswith("subprocess.") and "OSError" not in caught:
        return f"{dotted}() may find no program"
    if last in _FILE_CALLS and "OSError" not in caught and _is_file_call(dotted, node.func):
        return f"{last}() may raise OSError"
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


_ALIASES = {
    "IOError": "OSError",
    "EnvironmentError": "OSError",
    "ModuleNotFoundError": "ImportError",
}


def _caught(node: ast.Try) -> frozenset[str]:
    """Names of what a try statement catches; OSError and ImportError by their other names too."""
    found: set[str] = set()
    for handler in node.handlers:
        if any(isinstance(n, ast.Raise) and n.exc is None for n in handler.body):
            continue
        types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        found |= {"" if kind is None else last_name(kind) for kind in types}
    aliases = {
        "IOError": "OSError",
        "EnvironmentError": "OSError",
        "ModuleNotFoundError": "ImportError",
    }
    return frozenset(found | {aliases[name] for name in found & aliases.keys()})


def _suppresses(item: ast.withitem) -> bool:
    call = item.context_expr
    return isinstance(call, ast.Call) and last_name(call.func) == "suppress"


def _arguments(item: ast.withitem) -> list[ast.expr]:
    return item.context_expr.args if isinstance(item.context_expr, ast.Call) else []


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
            for node in own_nodes(function):
                if not isinstance(node, ast.Call):
                    continue
                name = exo_plugin.package.dotted(module, node.func)
                top, _, last = name.partition(".")
                limited = any(keyword.arg == "timeout" for keyword in node.keywords)
                if name == "time.sleep" or top in {"requests", "httpx", "urllib", "socket"}:
                    yield Finding(module.place(node), f"{name}() takes its time")
                waits = top == "subprocess" and last in _PROCESS_CALLS - {"Popen"} and not limited
                if waits or name in {"os.system", "os.popen"}:
                    yield Finding(module.place(node), f"{name}() has no timeout")
