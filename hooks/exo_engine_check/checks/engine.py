"""EX3: the shape of the engine's class, as its source spells it."""

import ast
import difflib
from collections.abc import Iterator

from .. import host
from ..findings import Check, Finding, reports
from ..plugin import Plugin
from ..source import Function, Module


class Engine(Check):
    family = "exo-engine"


def _methods(plugin: Plugin, *names: str) -> Iterator[tuple[str, Module, Function]]:
    """The methods of these names that the engines spell out."""
    for engine in plugin.engines:
        for name in names:
            if (found := engine.method(name)) is not None:
                yield name, *found


class EX301(Engine):
    "The engine has every method that exo calls"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """Without one of the five abstract methods the engine can't be made
        (inference_engine.py:240-258). `ensure_shard` is not among them, but a node calls it for
        every token (node.py:129): without it every answer dies. Write the method."""
        for engine in exo_plugin.engines:
            for name in host.REQUIRED:
                if name not in engine.methods and not engine.is_open:
                    where = host.CALLS[name][2]
                    message = f"{engine.name} has no {name}(), which exo calls ({where})"
                    yield Finding(engine.place, message)


class EX302(Engine):
    "The engine extends exo's InferenceEngine"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """The base class gives `infer_prompt`, with which every request starts (node.py:214), and
        what exo's training asks for (node.py:258). Without it nothing says that a method is missing
        until it is called. Write `class MyInferenceEngine(InferenceEngine)` with exo's class from
        `exo.inference.inference_engine`."""
        for engine in exo_plugin.engines:
            if not engine.is_engine and not engine.is_open:
                message = f"{engine.name} does not extend exo's InferenceEngine"
                yield Finding(engine.place, message)


class EX303(Engine):
    "The methods that exo awaits are async"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """exo awaits them (node.py:128-129, 214, 382): awaiting what a plain function returns is a
        TypeError. Write `async def`. An async generator can't be awaited either: return, don't
        yield."""
        for name, module, node in _methods(exo_plugin, *host.CALLS.keys() - {"__init__"}):
            yields = any(isinstance(n, ast.Yield | ast.YieldFrom) for n in _own(node))
            if isinstance(node, ast.AsyncFunctionDef) and yields:
                yield Finding(module.place(node), f"{name}() yields, and exo awaits it")
            elif isinstance(node, ast.FunctionDef) and not _gives_awaitable(node):
                yield Finding(module.place(node), f"{name}() is not async, and exo awaits it")


def _own(node: Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    pending: list[ast.AST] = [*node.body]
    while pending:
        part = pending.pop()
        yield part
        if not isinstance(part, Function | ast.Lambda):
            pending += ast.iter_child_nodes(part)


def _gives_awaitable(node: ast.FunctionDef) -> bool:
    """A plain function may hand on what another one gives; the run sees whether it can be awaited.

    Decorators may make anything of it.
    """
    values = [part.value for part in _own(node) if isinstance(part, ast.Return)]
    named = {"property", "staticmethod"} & {getattr(d, "id", "") for d in node.decorator_list}
    calls = bool(values) and all(isinstance(value, ast.Call) for value in values)
    return bool(node.decorator_list and not named) or (calls and len(node.body) == 1)


class EX304(Engine):
    "The methods take the arguments that exo gives"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A node gives them by position: `infer_tensor(request_id, shard, tensor, state)`
        (node.py:382), `ensure_shard(shard)` (node.py:129), `encode(shard, prompt)`
        (inference_engine.py:270), `sample(result, temp=…)` (node.py:128), and makes the engine with
        `Class(shard_downloader)` (plugin_discovery.py:189). Other parameters are a TypeError at the
        first token: give what exo does not pass a default."""
        for name, module, node in _methods(exo_plugin, *host.CALLS):
            count, keywords, where = host.CALLS[name]
            takes = _takes(node)
            if takes is None:
                continue
            if not takes[0] <= count <= takes[1]:
                told = takes[0] if takes[0] == takes[1] else f"{takes[0]} to {takes[1]:g}"
                message = f"{name}() takes {told} arguments, and exo gives {count} ({where})"
                yield Finding(module.place(node), message)
            named = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
            for keyword in keywords - named if node.args.kwarg is None else ():
                yield Finding(module.place(node), f"{name}() takes no {keyword} ({where})")


def _takes(node: Function) -> tuple[int, float] | None:
    """How few and how many positional arguments a method takes; None: who knows."""
    kinds = {getattr(d, "id", "") for d in node.decorator_list}
    if "property" in kinds:
        return 0, 0
    if kinds - {"staticmethod", "classmethod", "override", "abstractmethod"}:
        return None
    arguments = node.args
    bound = 0 if "staticmethod" in kinds else 1
    most = len(arguments.posonlyargs) + len(arguments.args) - bound
    keywords = [d for d in arguments.kw_defaults if d is None]
    least = most - len(arguments.defaults) + (1000 if keywords else 0)
    return max(least, 0), float("inf") if arguments.vararg else most


class EX307(Engine):
    "The downloader is asked with the shard and the engine's class name"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """`shard_downloader.ensure_shard(shard, engine_class_name)` has two parameters
        (shard_download.py:11): with one it is a TypeError at the first request. Write `await
        self.shard_downloader.ensure_shard(shard, type(self).__name__)`."""
        for engine in exo_plugin.engines:
            for module, call in engine.walk(ast.Call):
                if isinstance(call, ast.Call) and _asks_downloader(call):
                    given = len(call.args) + len(call.keywords)
                    if given != 2 and not any(isinstance(a, ast.Starred) for a in call.args):
                        noun = "argument" if given == 1 else "arguments"
                        message = f"the downloader gets {given} {noun}; it takes 2 arguments"
                        yield Finding(module.place(call), message)


def _asks_downloader(call: ast.Call) -> bool:
    asked = ast.unparse(call.func)
    return asked.endswith("downloader.ensure_shard")


class EX309(Engine):
    "The engine has every method that it calls itself"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """A call of a method that neither the class nor exo's base has
        (inference_engine.py:237-277) is an AttributeError at the first request that comes there.
        Write the method, or mend the name."""
        for engine in exo_plugin.engines:
            known = {*engine.methods, *host.CALLS}
            known |= {n.attr for _, n in engine.walk(ast.Attribute) if isinstance(n.ctx, ast.Store)}  # type: ignore[attr-defined]
            for module, call in engine.walk(ast.Call) if not engine.is_open else ():
                called = getattr(call, "func", None)
                name = called.attr if isinstance(called, ast.Attribute) else "__"
                own = getattr(getattr(called, "value", None), "id", "") == "self"
                if not own or name in known or name.startswith("__"):
                    continue
                known.add(name)
                near = difflib.get_close_matches(name, engine.methods, 1, 0.7)
                hint = f" (is {near[0]}() meant?)" if near else ""
                message = f"{engine.name} calls its own{hint} {name}()"
                yield Finding(module.place(call), message + ", which is not there")


class EX313(Engine):
    "The engine knows which layers are its own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """In a cluster a node gets a part of the layers (node.py:128 samples on the last one only),
        so hidden states come in and go out. Ask the shard: `is_first_layer()`, `is_last_layer()`,
        `start_layer`, `end_layer`. An engine that can only run whole models hands the input on
        where `shard.is_last_layer()` is false."""
        asks = (b"is_first_layer", b"is_last_layer", b"start_layer", b"end_layer")
        if any(ask in module.data for module in exo_plugin.package for ask in asks):
            return
        for engine in exo_plugin.engines:
            if (found := engine.method("infer_tensor")) is not None and not engine.is_open:
                message = "infer_tensor() doesn't ask which layers the shard has"
                yield Finding(found[0].place(found[1]), message)
