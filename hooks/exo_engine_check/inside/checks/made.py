"""EX6: an engine that exo has just made."""

from collections.abc import Iterator
from typing import Any

from ..core import Check, shorten


class EX602(Check):
    "exo makes the plugin's class, with the attributes that exo reads"

    @staticmethod
    def check(engine: Any, engines: dict[str, Any]) -> Iterator[str]:
        """`load_inference_engine(name, shard_downloader)` (plugin_discovery.py:153) makes it. exo
        reads `shard` (main.py:186, None before the first) and `shard_downloader`
        (chatgpt_api.py:657) from it at any time: set them in `__init__`. `tokenizer` (node.py:131,
        main.py:190) has to be there once a shard is."""
        kind, (name, wanted) = type(engine), next(iter(engines.items()))
        if kind is not wanted:
            yield f"exo loads {kind.__module__}.{kind.__qualname__} as {name}"
        for name, where in (("shard", "main.py:186"), ("shard_downloader", "chatgpt_api.py:657")):
            if not hasattr(engine, name):
                yield f"{kind.__name__} has no {name} when it is made, which exo reads ({where})"
        if getattr(engine, "shard", None) is not None:
            yield f"shard is {shorten(engine.shard)} before the first one, not None"


class EX605(Check, row="metrics"):
    "Metrics carry the plugin's own prefix"

    @staticmethod
    def check(engine: Any, collectors: list[Any], request: dict[str, Any]) -> Iterator[str]:
        """The registry is exo's, and one name can be registered once: exo has `exo_requests_total`,
        `rkllm_server_up` and more (prometheus_metrics.py:15-108, rkllm/metrics.py:15-57), and a
        second one fails the import with "Duplicated timeseries". Begin every name with the
        package's."""
        prefixes = tuple(f"{name}_" for name in request["packages"])
        for collector in collectors:
            for metric in collector.describe() if hasattr(collector, "describe") else ():
                if not metric.name.startswith(prefixes):
                    yield f"the metric {metric.name} does not begin with {' or '.join(prefixes)}"
