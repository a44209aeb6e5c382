"""EX4: the model cards, as exo merges them; EX6: an engine that exo has just made."""

from collections.abc import Iterator
from typing import Any

from ..check import Check
from ..events import describe, shorten
from ..importing import Imported


class EX400(Check):
    "exo's own discovery finds what the entry points name"

    @staticmethod
    def check(imported: Imported, request: dict[str, Any]) -> Iterator[str]:
        """This is what exo's own functions give (plugin_discovery.py:78,100,124), for the models
        while `exo.models` is being imported (models.py:165-168). What they leave out, exo does not
        have: it takes models only when they are a dict, and detectors only when they can be
        called."""
        try:
            loaders = imported.exo.discovery.discover_inference_engines()
            cards = imported.exo.discovery.discover_models()
            detectors = imported.exo.discovery.discover_device_detectors()
        except Exception as error:
            yield f"exo's discovery fails: {describe(error)}"
            return
        groups = [entry["group"] for entry in request["entry_points"]]
        for entry in request["entry_points"]:
            if entry["group"] != "exo.inference_engines":
                continue
            module, _, name = entry["value"].rpartition(":")
            loader = tuple(loaders.get(entry["name"], ("nothing", ""))[:2])
            if loader != (module, name):
                yield f"exo's discovery of the engine {entry['name']} gives {':'.join(loader)}"
        if "exo.models" in groups and not cards:
            yield "exo's discovery drops the models: they are no dict, or empty, or can't be loaded"
        if len(detectors) < groups.count("exo.device_detectors"):
            yield "exo's discovery drops a detector: it can't be called, or loaded"


class EX401(Check):
    "Every model card has layers and a repository for the engine"

    @staticmethod
    def check(cards: dict[str, Any], request: dict[str, Any]) -> Iterator[str]:
        """exo splits a model by `card["layers"]`, a number of at least 1 (models.py:265-268), and
        asks for `card["repo"][engine.__class__.__name__]`, not for the name of the entry point
        (models.py:258). It downloads from there: `organization/name` of the Hugging Face hub. A
        card without them is never offered; one that is no dict ends every request for it. Write
        `{"layers": 32, "repo": {"MyInferenceEngine": "organization/model"}}`."""
        engines = [e for e in request["entry_points"] if e["group"] == "exo.inference_engines"]
        classes = {entry["value"].rpartition(":")[2] for entry in engines}
        for name, card in cards.items():
            if not isinstance(card, dict):
                yield f"the card of {name} is {shorten(card)}, no dict"
                continue
            yield from (
                f"the card of {name} has no {k}" for k in ("layers", "repo") if k not in card
            )
            layers, repo = card.get("layers", 1), card.get("repo", dict.fromkeys(classes, "a/b"))
            if type(layers) is not int or layers < 1:
                yield f"layers of {name} is {shorten(layers)}"
            if not isinstance(repo, dict):
                yield f"repo of {name} is {shorten(repo)}, no dict"
            elif classes and not classes & repo.keys():
                names = " or ".join(sorted(classes))
                yield f"repo of {name} is for {', '.join(map(str, repo)) or 'nobody'}, not {names}"
            for value in repo.values() if isinstance(repo, dict) else ():
                parts = value.split("/") if isinstance(value, str) else []
                if len(parts) != 2 or not all(p and p.strip(".") and ":" not in p for p in parts):
                    yield f"the repository of {name} is {shorten(value)}, not organization/name"


class EX405(Check):
    "No model id is one of exo's own"

    @staticmethod
    def check(cards: dict[str, Any], request: dict[str, Any]) -> Iterator[str]:
        """exo puts the plugin's cards over its own with `dict.update` (models.py:168): the card of
        exo is lost, and its engines lose the model. Give the id a suffix of the engine's."""
        for name in sorted(cards.keys() & set(request["model_ids"])):
            yield f"exo has a model of its own called {name}"


class EX602(Check):
    "exo makes the plugin's class, with the attributes that exo reads"

    @staticmethod
    def check(engine: Any, engines: dict[str, Any]) -> Iterator[str]:
        """`load_inference_engine(name, shard_downloader)` (plugin_discovery.py:153) makes it. exo
        reads `shard` (main.py:186, None before the first) and `shard_downloader`
        (chatgpt_api.py:657) from it at any time: set them in `__init__`. `tokenizer` (node.py:131,
        main.py:190) has to be there once a shard is."""
        kind, (name, named) = type(engine), next(iter(engines.items()))
        if kind is not named:
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
