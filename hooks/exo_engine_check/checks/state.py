"""EX6: what an engine keeps, and the metrics that it shows."""

import ast
import builtins
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator

from .. import host
from ..evaluate import UnknownError, text_of, value_of
from ..findings import Check, Finding, reports
from ..plugin import Plugin
from ..source import Class, Function, Module, is_self, last_name, own_nodes, parameters
from .engine import code, fields


class State(Check):
    family = "exo-state"


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _base(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node


def _passed(
    plugin: Plugin, engine: Class, start: list[tuple[str, int]]
) -> Iterator[tuple[Module, Function, str]]:
    """Where a parameter goes: the methods of the class that get it, under the name it has there."""
    pending, seen = list(start), set[tuple[str, str]]()
    while pending:
        method, position = pending.pop()
        module, function = engine.methods.get(method, (engine.module, None))
        if function is None or position >= len(names := parameters(function)):
            continue
        name = names[position]
        if (method, name) in seen:
            continue
        seen.add((method, name))
        yield module, function, name
        for node in _given(function, name):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if is_self(node.func.value, function):
                for number, argument in enumerate(node.args):
                    if isinstance(argument, ast.Name) and argument.id == name:
                        pending.append((node.func.attr, number))


def _given(function: Function, name: str) -> list[ast.AST]:
    """The nodes that see under a name what the function got: until it has another value."""
    nodes = list(ast.walk(function))
    ends = [(sys.maxsize, 0)]
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.For):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            last = node.target if isinstance(node, ast.For) else node
            if any(_stores(target, name) for target in targets):
                ends.append((last.end_lineno or 0, last.end_col_offset or 0))
    return [n for n in nodes if (getattr(n, "lineno", 0), getattr(n, "col_offset", 0)) < min(ends)]


def _stores(target: ast.expr, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for n in ast.walk(target)
    )


def _changed(nodes: Iterable[ast.AST], name: str, methods: set[str]) -> Iterator[ast.AST]:
    """Statements that change the object a name stands for."""
    for node in nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign):
            targets = [node.target]
            if isinstance(node.target, ast.Name) and node.target.id == name:
                yield node
                continue
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if node.func.attr in methods and isinstance(owner, ast.Name) and owner.id == name:
                yield node
                continue
        for target in targets:
            if isinstance(target, ast.Subscript) and isinstance(_base(target), ast.Name):
                base = _base(target)
                if isinstance(base, ast.Name) and base.id == name:
                    yield node


class EX601(State):
    "Nothing is put into inference_state"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        On Linux exo can't send a state that is not empty to the next node: `np.array` is no type
        (grpc_peer_handle.py:203), and the request dies. Keep the state in the engine, under its
        `request_id`, and return `inference_state` as it came.
        """
        filling = {"update", "setdefault", "__setitem__"}
        changing = filling | {"pop", "popitem", "clear"}
        for engine in exo_plugin.engines:
            start = [("infer_tensor", 3), ("infer_prompt", 3)]
            for module, function, name in _passed(exo_plugin, engine, start):
                for node in _changed(_given(function, name), name, changing):
                    yield Finding(module.place(node), f"{name} is changed in {function.name}()")
            for method, position in start:
                module, plain = engine.methods.get(method, (engine.module, None))
                if plain is None:
                    continue
                for name in _returned(plain):
                    filled = (n for n in own_nodes(plain) if not isinstance(n, ast.Delete))
                    for node in _changed(filled, name, filling):
                        yield Finding(module.place(node), f"{name} is changed in {method}()")
                for node in _other_state(plain, position):
                    yield Finding(
                        module.place(node), f"{method}() puts values into inference_state"
                    )


def _states(function: Function) -> Iterator[tuple[ast.Return, ast.expr]]:
    """What a method returns as the state: the second of two values."""
    for node in own_nodes(function):
        match node:
            case ast.Return(value=ast.Tuple(elts=[_, state])):
                yield node, state


def _returned(function: Function) -> set[str]:
    return {state.id for _, state in _states(function) if isinstance(state, ast.Name)}


def _other_state(function: Function, position: int) -> Iterator[ast.AST]:
    """Where a method returns a dict with something in it, or gives a state's name such a one."""
    named = _returned(function) | {*parameters(function)[position : position + 1]}
    yield from (node for node, state in _states(function) if _is_filled(state))
    for node in own_nodes(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_filled(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id in named for target in targets):
                yield node


def _is_filled(value: ast.expr | None) -> bool:
    """Whether an expression surely is a dict with something in it."""
    if isinstance(value, ast.BinOp):
        return _is_filled(value.left) or _is_filled(value.right)
    if isinstance(value, ast.Call):
        return last_name(value.func) == "dict" and any(k.arg for k in value.keywords)
    return isinstance(value, ast.Dict) and any(value.keys)


class EX602(State):
    "The session is the engine's own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        `InferenceEngine.session` is one dict for all engines of the process, on the class
        (inference_engine.py:238). Set `self.session = {}` in `__init__`, and nothing on the class.
        """
        for engine in exo_plugin.engines:
            for module, node in engine.chain:
                for statement in node.body:
                    targets: list[ast.expr] = []
                    if isinstance(statement, ast.Assign):
                        targets = statement.targets
                    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                        targets = [] if "session" in fields(engine) else [statement.target]
                    if any(isinstance(t, ast.Name) and t.id == "session" for t in targets):
                        message = f"session is shared by all objects of {node.name}"
                        yield Finding(module.place(statement), message)
            if "session" in engine.methods.keys() | engine.own_attributes:
                continue
            for module, function in engine.functions:
                for used in ast.walk(function):
                    if (
                        isinstance(used, ast.Attribute)
                        and used.attr == "session"
                        and is_self(used.value, function)
                    ):
                        yield Finding(module.place(used), "this is exo's session of all engines")


class EX603(State):
    "An engine with a session clears it itself"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo's `clear_session` calls `dict.empty()`, which does not exist (inference_engine.py:267).
        Write `async def clear_session(self): self.session.clear()`.
        """
        for engine in exo_plugin.engines:
            has = "session" in engine.own_attributes | fields(engine)
            if has and "clear_session" not in engine.methods and not engine.is_open:
                place = engine.module.place(engine.node)
                yield Finding(place, f"{engine.node.name} has a session and no clear_session()")


class EX604(State):
    "What is kept for a request is let go again"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        Nobody tells an engine that a request has ended: not after the last token, not when a client
        goes away (node.py:144-149). A dict keyed by `request_id` that nothing is taken from grows
        until the node dies. Bound it: the least recently used goes, or the oldest.
        """
        for module in code(exo_plugin, "request_id"):
            kept: dict[str, ast.AST] = {}
            for function in module.nodes:
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    kept |= {n: s for n, s in _kept(function) if n not in kept}
            for name, statement in kept.items():
                if not any(_let_go(other, name) for other in code(exo_plugin, name)):
                    message = f"self.{name} keeps something for every request and lets none go"
                    yield Finding(module.place(statement), message)


def _kept(function: Function) -> Iterator[tuple[str, ast.AST]]:
    """Attributes that a method fills under `request_id`."""
    if "request_id" not in parameters(function):
        return
    for node in ast.walk(function):
        found: ast.expr | None = None
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Subscript) and "request_id" in _names(target.slice):
                    found = target.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            if node.func.attr in {"setdefault", "add"} and first and "request_id" in _names(first):
                found = node.func.value
        if isinstance(found, ast.Attribute) and is_self(found.value, function):
            yield found.attr, node


def _let_go(module: Module, name: str) -> bool:
    """Whether the module may take anything out of the attribute, or gives it a size."""
    return any(
        (isinstance(child, ast.Attribute) and child.attr == name and _may_shrink(parent, child))
        or (isinstance(parent, ast.ClassDef) and _is_bounded(child, name))
        for parent in module.nodes
        for child in ast.iter_child_nodes(parent)
    )


_READING = ast.Compare | ast.comprehension | ast.For | ast.If | ast.While | ast.UnaryOp | ast.BoolOp


def _may_shrink(parent: ast.AST, child: ast.Attribute) -> bool:
    """Whether an attribute gets smaller, or is handed to something that may see to it."""
    if isinstance(parent, ast.Attribute):
        return parent.attr in {"pop", "popitem", "clear", "discard", "remove"}
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Del)
    if isinstance(parent, ast.Call):
        return not hasattr(builtins, getattr(parent.func, "id", ""))
    if isinstance(child.ctx, ast.Store):
        return isinstance(parent, ast.Assign | ast.AnnAssign) and _is_bounded(parent, child.attr)
    return not isinstance(parent, _READING | ast.FormattedValue)


def _is_bounded(statement: ast.AST, name: str) -> bool:
    """Whether a statement binds a name to more than a plain dict or set, or to some of itself."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    if not any(last_name(target) == name for target in targets):
        return False
    return not _is_plain_store(statement.value) or any(
        last_name(node) == name for node in ast.walk(statement.value)
    )


def _is_plain_store(value: ast.expr) -> bool:
    """Whether an expression makes a dict or set that grows without end."""
    if isinstance(value, ast.Call):
        made = next((k.value for k in value.keywords if k.arg == "default_factory"), value.func)
        return last_name(made) in {"dict", "set", "OrderedDict", "defaultdict"}
    return isinstance(value, ast.Dict | ast.Set | ast.DictComp)


class EX605(State):
    "The input is not changed"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A tensor from another node is `np.frombuffer`, which is read-only (grpc_server.py:82): a
        change in place is a ValueError in a cluster and nowhere else. Make a new array, or copy
        first: `x = x.copy()`.
        """
        changing = {"fill", "sort", "resize", "put", "itemset", "partition", "byteswap", "setfield"}
        for module, function, name in _inputs(exo_plugin):
            nodes = _given(function, name)
            written = [n for n in nodes if isinstance(n, ast.Call) and _writes_into(n, name)]
            for node in [*_changed(nodes, name, changing), *written]:
                yield Finding(module.place(node), f"{name} is changed in {function.name}()")


def _inputs(plugin: Plugin) -> Iterator[tuple[Module, Function, str]]:
    start = [("infer_tensor", 2), ("decode", 1)]
    for engine in plugin.engines:
        yield from _passed(plugin, engine, start)
    for module in code(plugin, "class Backend"):
        definition = module.names.get("Backend")
        if definition and isinstance(definition.node, ast.ClassDef):
            backend = Class.read(plugin.package, module, definition.node)
            yield from _passed(plugin, backend, [("forward", 1)])


def _writes_into(node: ast.Call, name: str) -> bool:
    for keyword in node.keywords:
        if (
            keyword.arg == "out"
            and isinstance(keyword.value, ast.Name)
            and keyword.value.id == name
        ):
            return True
    first = node.args[0] if node.args else None
    return (
        last_name(node.func) in {"copyto", "put", "place", "putmask", "fill_diagonal"}
        and isinstance(first, ast.Name)
        and first.id == name
    )


_METRICS = ("Counter", "Gauge", "Histogram", "Summary", "Info", "Enum")
_REQUEST_LABELS = re.compile(
    r"(request|req|session|prompt|user|conversation|trace)(_?id|_?uuid)?\Z"
)


def _metrics(plugin: Plugin) -> Iterator[tuple[Module, ast.Call, ast.expr | None]]:
    """Calls that make a metric, with the metric's name where the call itself has it.

    A helper of the module that takes the metric's class counts too: its calls and its own.
    """
    for module in code(plugin, "prometheus_client"):
        for function, node in _calls(module.tree):
            dotted = plugin.package.dotted(module, node.func)
            made = dotted.startswith("prometheus_client.") and dotted.endswith(_METRICS)
            by_helper = isinstance(node.func, ast.Name) and _is_class_parameter(
                function, node.func.id
            )
            named = next((k.value for k in node.keywords if k.arg == "name"), None)
            if made or by_helper:
                yield module, node, node.args[0] if node.args else named
            elif any(_is_metric_class(plugin, module, argument) for argument in node.args):
                yield module, node, None


def _calls(
    tree: ast.AST, function: Function | None = None
) -> Iterator[tuple[Function | None, ast.Call]]:
    for child in ast.iter_child_nodes(tree):
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        if isinstance(child, ast.Call):
            yield function, child
        yield from _calls(child, inner)


def _is_class_parameter(function: Function | None, name: str) -> bool:
    if function is None:
        return False
    for argument in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]:
        if argument.arg == name:
            said = ast.unparse(argument.annotation) if argument.annotation else ""
            return not said or said.lower().startswith(("type", "callable"))
    return False


def _is_metric_class(plugin: Plugin, module: Module, node: ast.expr) -> bool:
    dotted = plugin.package.dotted(module, node)
    return dotted.startswith("prometheus_client.") and dotted.endswith(_METRICS)


class EX606(State):
    "Metrics carry the plugin's own prefix"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        The registry is exo's, and one name can be registered once: exo has `exo_requests_total`,
        `rkllm_server_up` and more (prometheus_metrics.py:15-108, rkllm/metrics.py:15-57), and a
        second one fails the import with "Duplicated timeseries". Begin every name with the
        package's.
        """
        tops = {name.partition(".")[0] for name in exo_plugin.package.modules}
        entries = exo_plugin.in_group(host.GROUP_ENGINES)
        own = tops | {
            e.name.replace("-", "_") for e in entries if e.name not in host.BUILT_IN_ENGINES
        }
        own |= {top.removeprefix("exo_") for top in tops} - {*host.BUILT_IN_ENGINES}
        for module, node, name in _metrics(exo_plugin):
            text, whole = _full_name(exo_plugin, module, node, name) if name else ("", False)
            elsewhere = any(
                k.arg == "registry" and last_name(k.value) != "REGISTRY" for k in node.keywords
            )
            if not elsewhere and not any(
                text == prefix
                or text.startswith(f"{prefix}_")
                or (not whole and prefix.startswith(text))
                for prefix in own
            ):
                wanted = sorted(tops)[0] if tops else "the package's name"
                shown = text if whole else f"{text}…"
                yield Finding(
                    module.place(node), f"the metric {shown} does not begin with {wanted}_"
                )


def _full_name(plugin: Plugin, module: Module, node: ast.Call, name: ast.expr) -> tuple[str, bool]:
    """As much of a metric's name as can be told, and whether that is all of it."""
    found, keywords = "", {keyword.arg: keyword.value for keyword in node.keywords}
    given = dict(zip(("namespace", "subsystem"), node.args[3:5], strict=False)) | keywords
    for part in (given.get("namespace"), given.get("subsystem"), name):
        text, whole = text_of(plugin.package, module, part) if part else ("", None not in keywords)
        if not whole:
            return found + text, False
        found += text if part is name or not text else f"{text}_"
    return found, True


class EX607(State):
    "No metric has a label of a request"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        Prometheus keeps a time series for every value of a label, for as long as the process lives;
        one for each request grows without end (exo's own does: rkllm/metrics.py:45-49). Count
        requests by outcome, phase or model.
        """
        for module, node, _ in _metrics(exo_plugin):
            for argument in [*node.args[1:], *(k.value for k in node.keywords)]:
                for label in _labels(exo_plugin, module, argument):
                    if _REQUEST_LABELS.match(label):
                        yield Finding(module.place(node), f"a metric has the label {label}")


def _labels(plugin: Plugin, module: Module, node: ast.expr) -> Iterator[str]:
    """The texts of the tuples and lists in an expression, as far as they can be told."""
    for part in ast.walk(node):
        if isinstance(part, ast.Tuple | ast.List):
            told = [text_of(plugin.package, module, item) for item in part.elts]
            yield from (text for text, whole in told if whole)
        elif isinstance(part, ast.Name):
            with contextlib.suppress(UnknownError):
                value = value_of(plugin.package, module, part.id)
                yield from map(str, value if isinstance(value, list | tuple) else ())
