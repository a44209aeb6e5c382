"""EX6: an engine that exo has just made."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..core import Check, NotRunError, describe, shorten


class Engines(Check):
    family = "exo-engine-made"


class EX601(Engines):
    "exo loads the plugin's own class"

    @staticmethod
    def check(engine: Any, engines: dict[str, Any]) -> Iterator[Any]:
        """`load_inference_engine(name, shard_downloader)` (plugin_discovery.py:153) must give the
        class that the entry point names, and no built-in engine of the same name."""
        name, wanted = next(iter(engines.items()))
        if type(engine) is not wanted:
            kind = type(engine)
            yield f"exo loads {kind.__module__}.{kind.__qualname__} as {name}"


class EX602(Engines):
    "The engine has the attributes that exo reads"

    @staticmethod
    def check(engine: Any) -> Iterator[Any]:
        """exo reads `shard` (main.py:186, None before the first) and `shard_downloader`
        (chatgpt_api.py:657) from the engine at any time: set them in `__init__`. `tokenizer`
        (node.py:131, main.py:190) has to be there once a shard is."""
        kind = type(engine).__name__
        for name, where in (("shard", "main.py:186"), ("shard_downloader", "chatgpt_api.py:657")):
            if not hasattr(engine, name):
                yield f"{kind} has no {name} when it is made, which exo reads ({where})"
        if getattr(engine, "shard", None) is not None:
            yield f"shard is {shorten(engine.shard)} before the first one, not None"


def _keeps_sessions(engine: Any) -> None:
    """exo's own session is of no use, and most engines leave it alone."""
    own = [
        c for c in type(engine).__mro__ if not c.__module__.startswith(("exo.", "abc", "builtins"))
    ]
    names = {"session", "save_session", "clear_session"}
    if "session" not in vars(engine) and not any(names & vars(c).keys() for c in own):
        raise NotRunError("the engine keeps no session")


class EX603(Engines):
    "The session is the engine's own"

    @staticmethod
    async def check(make_engine: Callable[[], Any]) -> AsyncIterator[Any]:
        """`InferenceEngine.session` is one dict for all engines of the process, on the class
        (inference_engine.py:238). Set `self.session = {}` in `__init__`, and nothing on the
        class."""
        one, other = make_engine(), make_engine()
        _keeps_sessions(one)
        try:
            await one.save_session("exo-engine-check", 1)
        except Exception as error:
            yield f"save_session() fails: {describe(error)}"
            return
        if "exo-engine-check" in (other.session or ()):
            yield "what one engine saves in its session, another one has too"


class EX604(Engines):
    "An engine with a session clears it itself"

    @staticmethod
    async def check(engine: Any) -> AsyncIterator[Any]:
        """exo's `clear_session` calls `dict.empty()`, which does not exist
        (inference_engine.py:267). Write `async def clear_session(self): self.session.clear()`."""
        _keeps_sessions(engine)
        try:
            await engine.save_session("exo-engine-check", 1)
            await engine.clear_session()
        except Exception as error:
            yield f"clear_session() fails: {describe(error)}"
            return
        if engine.session:
            yield f"clear_session() leaves {shorten(engine.session)}"


class EX605(Engines):
    "Metrics carry the plugin's own prefix"

    @staticmethod
    def check(collectors: list[Any], request: dict[str, Any]) -> Iterator[Any]:
        """The registry is exo's, and one name can be registered once: exo has `exo_requests_total`,
        `rkllm_server_up` and more (prometheus_metrics.py:15-108, rkllm/metrics.py:15-57), and a
        second one fails the import with "Duplicated timeseries". Begin every name with the
        package's."""
        prefixes = tuple(f"{name}_" for name in request["packages"])
        for collector in collectors:
            for metric in collector.describe() if hasattr(collector, "describe") else ():
                if not metric.name.startswith(prefixes):
                    yield f"the metric {metric.name} does not begin with {' or '.join(prefixes)}"
