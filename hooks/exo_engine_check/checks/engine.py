"""EX3: the engine's class, as a node of exo calls it."""

import ast
import builtins
from collections.abc import Iterator

from .. import host
from ..files import words
from ..findings import Check, Finding, Place, reports
from ..plugin import Plugin
from ..source import (
    STANDARD_LIBRARY,
    Class,
    Function,
    Module,
    Package,
    accepts,
    decorators,
    is_plain,
    is_self,
    last_name,
    own_nodes,
    parameters,
)


class Engine(Check):
    family = "exo-engine"


def _at(engine: Class) -> Place:
    return engine.module.place(engine.node)


def code(plugin: Plugin, word: str) -> Iterator[Module]:
    """The modules that have a word, without the package's own tests: exo runs none of them."""
    for module in plugin.package.spelling(word):
        parts = module.name.split(".")[1:]
        if not any(p in {"tests", "test", "conftest"} or p.startswith("test_") for p in parts):
            yield module


def fields(engine: Class) -> set[str]:
    """Names that a decorator such as `dataclass` sets on each object, where it finds them."""
    return {
        statement.target.id
        for _, node in engine.chain
        for statement in (node.body if node.decorator_list else ())
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if "ClassVar" not in ast.unparse(statement.annotation)
    }


def _called(engine: Class) -> Iterator[tuple[str, Module, Function]]:
    """The plain methods that exo calls."""
    for name in host.CALLS:
        module, function = engine.methods.get(name, (engine.module, None))
        if function is not None and is_plain(function):
            yield name, module, function


class EX301(Engine):
    "The engine has every method that exo calls"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        Without one of the five abstract methods the engine can't be made
        (inference_engine.py:240-258). `ensure_shard` is not among them, but a node calls it for
        every token (node.py:129): without it every answer dies. Write the method.
        """
        for engine in exo_plugin.engines:
            missing = [name for name in host.REQUIRED if name not in engine.methods]
            for name in [] if engine.is_open else missing:
                message = f"{engine.node.name} has no {name}() ({host.CALLS[name][2]})"
                yield Finding(_at(engine), message)


class EX302(Engine):
    "The engine extends exo's InferenceEngine"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        The base class gives `infer_prompt`, with which every request starts (node.py:214), and
        what exo's training asks for (node.py:258). Without it nothing says that a method is missing
        until it is called. Write `class MyInferenceEngine(InferenceEngine)` with exo's class from
        `exo.inference.inference_engine`.
        """
        for engine in exo_plugin.engines:
            if not engine.is_engine and not engine.is_open:
                yield Finding(_at(engine), f"{engine.node.name} does not extend it")


class EX303(Engine):
    "The methods that exo awaits are async"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo awaits them (node.py:128-129, 214, 382): awaiting what a plain function returns is a
        TypeError. Write `async def`. An async generator can't be awaited either: return, don't
        yield.
        """
        for engine in exo_plugin.engines:
            for name, module, function in _called(engine):
                if isinstance(function, ast.AsyncFunctionDef):
                    if any(
                        isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function)
                    ):
                        yield Finding(module.place(function), f"{name}() is an async generator")
                elif not _awaitable(engine, module, function):
                    yield Finding(module.place(function), f"{name}() is not async")


def _awaitable(engine: Class, module: Module, function: Function, depth: int = 4) -> bool:
    """Whether a function gives something to await: it is async, says so, or each return does."""
    if isinstance(function, ast.AsyncFunctionDef):
        return True
    said = ast.unparse(function.returns) if function.returns else ""
    if any(word in said for word in ("Awaitable", "Coroutine", "Future", "Task")):
        return True
    returned = [node.value for node in own_nodes(function) if isinstance(node, ast.Return)]
    return bool(depth and returned) and all(
        isinstance(value, ast.Call) and _to_await(engine, module, function, value.func, depth)
        for value in returned
    )


def _to_await(
    engine: Class, module: Module, function: Function, called: ast.expr, depth: int
) -> bool:
    """Whether a call in a method gives something to await."""
    name = engine.package.dotted(module, called)
    if name.startswith("asyncio."):
        return not name.startswith("asyncio.run")
    last = last_name(called)
    if isinstance(called, ast.Name):
        found = engine.package.find(module, last)
        known = [found.node if found else None, *own_nodes(function)]
        return any(isinstance(n, ast.AsyncFunctionDef) and n.name == last for n in known)
    if not (isinstance(called, ast.Attribute) and is_self(called.value, function)):
        return last == "run_in_executor" or _is_super(called)
    module, method = engine.methods.get(last, (module, None))
    if method is None:
        return last in host.INHERITED
    return _awaitable(engine, module, method, depth - 1)


def _is_super(node: ast.expr) -> bool:
    """Whether an expression is an attribute of `super()`."""
    owner = node.value if isinstance(node, ast.Attribute) else None
    return isinstance(owner, ast.Call) and last_name(owner.func) == "super"


class EX304(Engine):
    "The methods take the arguments that exo gives"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A node gives them by position: `infer_tensor(request_id, shard, tensor, state)`
        (node.py:382), `ensure_shard(shard)` (node.py:129), `encode(shard, prompt)`
        (inference_engine.py:270). Another number of parameters is a TypeError at the first token.
        """
        for engine in exo_plugin.engines:
            for name, module, function in _called(engine):
                positional, keywords, where = host.CALLS[name]
                if not _misbound(function) and not accepts(function, positional, keywords):
                    count = f"{positional} argument{'' if positional == 1 else 's'}"
                    message = f"{name}({', '.join(parameters(function))}) can't take the {count}"
                    yield Finding(module.place(function), f"{message} that exo gives ({where})")


class EX305(Engine):
    "sample() takes a temperature"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A node calls `sample(result, temp=…)` (node.py:128), whatever the base class says
        (inference_engine.py:245): without a parameter `temp` every answer is a TypeError. Write
        `async def sample(self, x, temp=0.0, top_p=1.0)`.
        """
        for engine in exo_plugin.engines:
            module, function = engine.methods.get("sample", (engine.module, None))
            if function is None or not is_plain(function) or _misbound(function):
                continue
            if accepts(function, 1) and not accepts(function, 1, ("temp",)):
                yield Finding(module.place(function), "sample() has no parameter temp")


class EX306(Engine):
    "The constructor takes the downloader and nothing else"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo makes the engine with `Class(shard_downloader)`, one positional argument
        (plugin_discovery.py:189). Give every other parameter a default.
        """
        for engine in exo_plugin.engines:
            module, function = engine.methods.get("__init__", (engine.module, None))
            if function is None and "__init__" not in engine.methods and not _is_made(engine):
                yield Finding(_at(engine), f"{engine.node.name} has no __init__(shard_downloader)")
            elif function is not None and is_plain(function) and not accepts(function, 1):
                names = ", ".join(parameters(function))
                yield Finding(module.place(function), f"__init__({names}) can't take one argument")
            elif isinstance(function, ast.AsyncFunctionDef):
                yield Finding(module.place(function), "__init__() is async")


def _is_made(engine: Class) -> bool:
    """Whether something else than the source shown may write the constructor."""
    return engine.is_open or bool(fields(engine))


class EX307(Engine):
    "The downloader is asked with the shard and the engine's class name"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        `shard_downloader.ensure_shard(shard, engine_class_name)` has two parameters
        (shard_download.py:11): with one it is a TypeError at the first request. Write
        `await self.shard_downloader.ensure_shard(shard, type(self).__name__)`.
        """
        for module in code(exo_plugin, "ensure_shard"):
            for node in module.nodes:
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                if node.func.attr != "ensure_shard" or not _is_downloader(node.func.value):
                    continue
                starred = any(isinstance(a, ast.Starred) for a in node.args)
                starred |= any(k.arg is None for k in node.keywords)
                if not starred and len(node.args) + len(node.keywords) != 2:
                    yield Finding(module.place(node), "the downloader is not given two arguments")


def _is_downloader(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return "downloader" in str(name).lower()


class EX308(Engine):
    "The engine has the attributes that exo reads"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo reads `shard` (main.py:186, None before the first) and `shard_downloader`
        (chatgpt_api.py:657) from the engine at any time: set them in `__init__`. `tokenizer`
        (node.py:131, main.py:190) has to be there once a shard is.
        """
        for engine in exo_plugin.engines:
            first = _first_attributes(engine) | engine.methods.keys() | fields(engine)
            later = engine.methods.keys() | engine.own_attributes
            for name, where in host.ATTRIBUTES.items() if not engine.is_open else ():
                if name == "tokenizer" and name not in later:
                    yield Finding(_at(engine), f"the engine never sets self.{name} ({where})")
                elif name != "tokenizer" and name not in first:
                    yield Finding(_at(engine), f"__init__() does not set self.{name} ({where})")


def _first_attributes(engine: Class) -> set[str]:
    """Names that a new object gets: from its constructors, and from all methods they call."""
    named: dict[str, list[Function]] = {}
    for _, body in engine.chain:
        for statement in body.body:
            if isinstance(statement, Function):
                named.setdefault(statement.name, []).append(statement)
    found, pending = set[str](), {"__init__", "__post_init__"}
    while pending:
        for function in named.pop(pending.pop(), ()):
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute):
                    continue
                if is_self(node.value, function) or _is_super(node):
                    (found if isinstance(node.ctx, ast.Store) else pending).add(node.attr)
    return found


class EX309(Engine):
    "The engine has every method that it calls itself"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        A call of a method that neither the class nor exo's base has (inference_engine.py:237-277)
        is an AttributeError at the first request that comes there. Write the method, or mend the
        name.
        """
        for engine in exo_plugin.engines:
            known = engine.methods.keys() | engine.own_attributes | {*host.INHERITED, "session"}
            if engine.is_open or "__getattribute__" in known:
                continue
            missing: dict[str, Place] = {}
            for module, function in engine.functions:
                for node in ast.walk(function):
                    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                        continue
                    name = node.func.attr
                    if name in known or name.startswith("__") or name in host.REQUIRED:
                        continue
                    if is_self(node.func.value, function):
                        place = module.place(node)
                        missing[name] = min(place, missing.get(name, place))
            for name, place in missing.items():
                yield Finding(place, f"{engine.node.name} has no {name}()")


class EX310(Engine):
    "The class has a name of its own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo tells engines apart by the name of their class: model cards are keyed by it
        (models.py:258), and `DummyInferenceEngine` has a meaning of its own (node.py:522). Choose a
        name that no engine of exo has.
        """
        for entry in exo_plugin.in_group(host.GROUP_ENGINES):
            name = exo_plugin.class_name(entry)
            if name in host.BUILT_IN_ENGINES.values():
                yield Finding(entry.place, f"exo has a class {name} of its own")


class EX311(Engine):
    "Nothing blocks the event loop"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        Requests, gRPC and the API share one event loop (node.py:382, main.py:210): while an async
        function sleeps or waits in a plain call, every other request stands still. Await an async
        library, or hand the call to a thread with `asyncio.to_thread`.
        """
        for module in code(exo_plugin, "async "):
            for function in module.nodes:
                if isinstance(function, ast.AsyncFunctionDef):
                    for node in own_nodes(function):
                        if isinstance(node, ast.Call):
                            name = exo_plugin.package.dotted(module, node.func)
                            if waits(name):
                                message = f"{name}() blocks the loop in {function.name}()"
                                yield Finding(module.place(node), message)


_WAITING = words(
    """os.popen os.system socket.create_connection socket.getaddrinfo socket.getfqdn
    socket.gethostbyaddr socket.gethostbyname time.sleep urllib.request.urlopen
    urllib.request.urlretrieve"""
)
_WAITING_MODULES = {
    "subprocess": words("call check_call check_output getoutput getstatusoutput run")
} | dict.fromkeys(("httpx", "requests"), words("delete get head patch post put request"))


def waits(name: str) -> bool:
    """Whether a plain call waits: for time, a program or the network."""
    top, _, last = name.partition(".")
    return name in _WAITING or last in _WAITING_MODULES.get(top, ())


class EX312(Engine):
    "An end token with the id 0 is an end token"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo's API takes an id of 0 for none (chatgpt_api.py:416,481), and the engine must not do the
        same: its answers would never end. Compare with None: `if eos_token_id is None`.
        """
        for module in code(exo_plugin, "eos_"):
            for node in module.nodes:
                tested: list[ast.expr] = []
                if isinstance(node, ast.If | ast.IfExp | ast.While):
                    tested = [node.test]
                elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                    tested = [node.operand]
                elif isinstance(node, ast.BoolOp):
                    tested = node.values if isinstance(node.op, ast.And) else node.values[:-1]
                for part in tested:
                    if name := _end_token(module, part):
                        yield Finding(module.place(part), f"{name} is tested for truth: 0 is none")


def _end_token(module: Module, node: ast.expr) -> str:
    """The end token that an expression reads, or that a name was given; else empty."""
    node = node.value if isinstance(node, ast.NamedExpr) else node
    given = _last_value(module, node) if isinstance(node, ast.Name) else None
    for read in (node, given):
        name = last_name(read) if read else ""
        if isinstance(read, ast.Call) and last_name(read.func) == "getattr" and read.args[1:]:
            name = str(getattr(read.args[1], "value", ""))
        if name in {"eos_token_id", "eos_id"}:
            return name
    return ""


def _last_value(module: Module, name: ast.Name) -> ast.expr | None:
    """What the last binding before it in the text gives a name; None: that can't be told."""
    values, last = dict[tuple[int, int], ast.expr | None](), (0, 0)
    for node in module.nodes:
        match node:
            case ast.Assign():
                values |= {_position(target): node.value for target in node.targets}
            case ast.AnnAssign() | ast.NamedExpr():
                values[_position(node.target)] = node.value
            case ast.arg(arg=name.id) | ast.Name(id=name.id, ctx=ast.Store()):
                last = max(last, _position(node)) if _position(node) < _position(name) else last
    return values.get(last)


def _position(node: ast.expr | ast.arg) -> tuple[int, int]:
    return node.lineno, node.col_offset


class EX313(Engine):
    "The engine knows which layers are its own"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        In a cluster a node gets a part of the layers (node.py:128 samples on the last one only), so
        hidden states come in and go out. Ask the shard: `is_first_layer()`, `is_last_layer()`,
        `start_layer`, `end_layer`. An engine that can only run whole models hands the input on
        where `shard.is_last_layer()` is false.
        """
        asked = {"is_first_layer", "is_last_layer", "start_layer", "end_layer", "get_layer_count"}
        for engine in exo_plugin.engines:
            if engine.is_open or "infer_tensor" not in engine.methods:
                continue
            roots = [module.name for module, _ in engine.chain]
            near = _within_reach(exo_plugin.package, roots)
            if not any(
                (isinstance(node, ast.Attribute) and node.attr in asked)
                or _hands_shard_on(exo_plugin, module, node)
                for module in near
                for node in module.nodes
            ):
                module, function = engine.methods["infer_tensor"]
                place = module.place(function) if function else _at(engine)
                yield Finding(place, f"{engine.node.name} never asks which layers its shard has")


def _within_reach(package: Package, roots: list[str]) -> list[Module]:
    """The modules that importing these imports, and calling their functions does."""
    near: list[Module] = []
    while len(found := package.loaded_with(roots)) > len(near):
        near = found
        imports = [i for module in near for i in module.all_imports]
        roots = [*roots, *(name for i in imports for name in (i.module, f"{i.module}.{i.name}"))]
    return near


def _hands_shard_on(plugin: Plugin, module: Module, node: ast.AST) -> bool:
    """Whether a call gives the shard to a library, which may ask it."""
    if not isinstance(node, ast.Call):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    if not any(last_name(argument) == "shard" for argument in given):
        return False
    top = plugin.package.dotted(module, node.func).partition(".")[0]
    mine = top in plugin.package.tops or top in STANDARD_LIBRARY or hasattr(builtins, top)
    return bool(top) and not mine


class EX314(Engine):
    "The template's mends of the host are applied"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        When a peer joins or leaves, exo puts tinygrad in a plugin's place (node.py:521-526), and an
        error after the first token leaves the client waiting (node.py:385-388). The template's
        `host.py` mends both: let the engine's `__init__` call `host.mend(type(self))`.
        """
        for engine in exo_plugin.engines:
            top = engine.module.name.partition(".")[0]
            mends = exo_plugin.package.modules.get(f"{top}.host")
            if mends is None or "mend" not in mends.names:
                continue
            _, function = engine.methods.get("__init__", (engine.module, None))
            if function is None or engine.is_open:
                continue
            if not any(_names_mend(node) for node in ast.walk(function)):
                yield Finding(engine.module.place(function), "__init__() does not call host.mend()")
            else:
                yield from _unused_mends(mends)


_MENDS = ("name_models", "keep_engine", "end_failed_answers")


def _names_mend(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and "mend" in (
        getattr(node.func, "attr", ""),
        getattr(node.func, "id", ""),
    )


def _unused_mends(module: Module) -> Iterator[Finding]:
    mend = module.names["mend"].node
    used = {node.id for node in ast.walk(mend) if isinstance(node, ast.Name)}
    for name in _MENDS:
        if name in module.names and name not in used:
            yield Finding(module.place(mend), f"mend() does not call {name}()")


class EX315(Engine):
    "Methods are methods"

    @reports
    def check(exo_plugin: Plugin) -> Iterator[Finding]:
        """
        exo calls the methods on the engine that it made (node.py:128-129, 214, 382). A method
        without `self`, a `@staticmethod` that has it, or a `@property` fails at the first call.
        """
        for engine in exo_plugin.engines:
            for name, module, function in _called(engine):
                if problem := _misbound(function):
                    yield Finding(module.place(function), f"{name}() {problem}")


def _misbound(function: Function) -> str:
    """What is wrong with how a function becomes a method; empty where nothing is."""
    kinds = decorators(function)
    arguments = [*function.args.posonlyargs, *function.args.args]
    first = arguments[0].arg if arguments else ""
    if "property" in kinds:
        return "is a property"
    if "staticmethod" in kinds and first == "self":
        return "is static and takes self"
    if "staticmethod" not in kinds and not first and function.args.vararg is None:
        return "takes no self"
    if "staticmethod" not in kinds and first in {"shard", "request_id"}:
        return f"takes no self: its first parameter is {first}"
    return ""
