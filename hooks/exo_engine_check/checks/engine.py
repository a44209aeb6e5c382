"""EX3: the shape of the engine's class, as its source has it."""

import ast
import copy
import difflib
import inspect
from collections.abc import Iterator

from .. import host
from ..inside.check import Check
from ..plugin import Plugin
from ..report import Fault
from ..source import Function, Module


def _methods(plugin: Plugin, *names: str) -> Iterator[tuple[str, Module, Function]]:
    """The methods of these names that stand in the engines' source."""
    for engine in plugin.engines:
        for name in names:
            if (method := engine.method(name)) is not None:
                yield name, *method


def _decorators(node: Function) -> set[str]:
    return {getattr(d, "id", "") for d in node.decorator_list}


class EX301(Check):
    "The engine has every method that exo calls"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """Without one of the five abstract methods the engine can't be made
        (inference_engine.py:240-258). `ensure_shard` is not among them, but a node calls it for
        every token (node.py:129): without it every answer dies. Write the method."""
        for engine in plugin.engines:
            for name in host.REQUIRED:
                if name not in engine.methods and not engine.is_open:
                    where = host.CALLS[name][2]
                    message = f"{engine.name} has no {name}(), which exo calls ({where})"
                    yield Fault(engine.place, message)


class EX302(Check):
    "The engine extends exo's InferenceEngine"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """The base class gives `infer_prompt`, with which every request starts (node.py:214), and
        what exo's training asks for (node.py:258). Without it nothing says that a method is missing
        until it is called. Write `class MyInferenceEngine(InferenceEngine)` with exo's class from
        `exo.inference.inference_engine`."""
        for engine in plugin.engines:
            if not engine.is_engine and not engine.is_open:
                message = f"{engine.name} does not extend exo's InferenceEngine"
                yield Fault(engine.place, message)


class EX303(Check):
    "The methods that exo awaits are async"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """exo awaits them (node.py:128-129, 214, 382): awaiting what a plain function returns is a
        TypeError. Write `async def`. An async generator can't be awaited either: return, don't
        yield."""
        for name, module, node in _methods(plugin, *host.CALLS.keys() - {"__init__"}):
            inside = list(_own(node))
            if isinstance(node, ast.AsyncFunctionDef):
                if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in inside):
                    yield Fault(module.place(node), f"{name}() yields, and exo awaits it")
                continue
            # It may hand on what another one gives, and a decorator may make anything of it.
            made = _decorators(node) - {"staticmethod"}
            handed = [getattr(p, "value", None) for p in inside if isinstance(p, ast.Return)]
            if not made and not (len(node.body) == 1 and isinstance(handed[0], ast.Call)):
                yield Fault(module.place(node), f"{name}() is not async, and exo awaits it")


def _own(node: Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    pending: list[ast.AST] = [*node.body]
    while pending:
        part = pending.pop()
        yield part
        if not isinstance(part, Function | ast.Lambda):
            pending += ast.iter_child_nodes(part)


class EX304(Check):
    "The methods take the arguments that exo gives"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A node gives them by position: `infer_tensor(request_id, shard, tensor, state)`
        (node.py:382), `ensure_shard(shard)` (node.py:129), `encode(shard, prompt)`
        (inference_engine.py:270), `sample(result, temp=…)` (node.py:128), and makes the engine with
        `Class(shard_downloader)` (plugin_discovery.py:189). Other parameters are a TypeError at the
        first token: give what exo does not pass a default."""
        for name, module, node in _methods(plugin, *host.CALLS):
            count, keywords, where = host.CALLS[name]
            made = _decorators(node)
            if made - {"staticmethod", "classmethod", "override", "abstractmethod"}:
                continue
            defaults = [None] * (count + ("staticmethod" not in made))
            try:
                _signature(node).bind(*defaults, **dict.fromkeys(keywords))
            except TypeError as error:
                message = f"{name}() does not take what exo gives ({where}): {error}"
                yield Fault(module.place(node), message)


def _signature(node: Function) -> inspect.Signature:
    """Its parameters alone: of defaults and annotations nothing is run."""
    arguments = copy.deepcopy(node.args)
    for part in ast.walk(arguments):
        if isinstance(part, ast.arg):
            part.annotation = None
    nothing = ast.Constant(None)
    arguments.defaults = [nothing] * len(arguments.defaults)
    arguments.kw_defaults = [default and nothing for default in arguments.kw_defaults]
    return inspect.signature(eval(f"lambda {ast.unparse(arguments)}: None"))


class EX307(Check):
    "The downloader gets the shard and the name of the engine's class"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """`shard_downloader.ensure_shard(shard, engine_class_name)` has two parameters
        (shard_download.py:11): with one it is a TypeError at the first request. Write `await
        self.shard_downloader.ensure_shard(shard, type(self).__name__)`."""
        for engine in plugin.engines:
            for module, call in engine.calls:
                if ast.unparse(call.func).endswith("downloader.ensure_shard"):
                    count = len(call.args) + len(call.keywords)
                    if count != 2 and not any(isinstance(a, ast.Starred) for a in call.args):
                        message = f"the downloader gets {count}, and takes 2 arguments"
                        yield Fault(module.place(call), message)


class EX309(Check):
    "The engine has every method that it calls itself"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A call of a method that neither the class nor exo's base has
        (inference_engine.py:237-277) is an AttributeError at the first request that comes there.
        Write the method, or correct the name."""
        for engine in plugin.engines:
            known = {*engine.methods, *engine.stored, *host.CALLS}
            for module, call in engine.calls if not engine.is_open else ():
                name = getattr(call.func, "attr", "__")
                own = getattr(getattr(call.func, "value", None), "id", "") == "self"
                if not own or name in known or name.startswith("__"):
                    continue
                known.add(name)
                near = difflib.get_close_matches(name, engine.methods, 1, 0.7)
                hint = f" (is {near[0]}() meant?)" if near else ""
                message = f"{engine.name} calls its own{hint} {name}()"
                yield Fault(module.place(call), message + ", which is not there")


class EX313(Check):
    "The engine knows which layers are its own"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """In a cluster a node gets a part of the layers (node.py:128 samples on the last one only),
        so hidden states come in and go out. Ask the shard: `is_first_layer()`, `is_last_layer()`,
        `start_layer`, `end_layer`. An engine that can only run whole models hands the input on
        where `shard.is_last_layer()` is false."""
        asks = (b"is_first_layer", b"is_last_layer", b"start_layer", b"end_layer")
        if any(ask in module.data for module in plugin.package for ask in asks):
            return
        for engine in plugin.engines:
            if (method := engine.method("infer_tensor")) is not None and not engine.is_open:
                message = "infer_tensor() doesn't ask which layers the shard has"
                yield Fault(method[0].place(method[1]), message)
