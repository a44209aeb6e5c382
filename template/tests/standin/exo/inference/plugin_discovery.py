"""How exo finds engines, models and detectors of other packages."""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

from exo.helpers import DEBUG

Row = tuple[str, str, bool]

_BUILT_IN = "exo.inference.builtin"  # exo has a module for each

BUILTIN_ENGINES: dict[str, Row] = {
    "mlx": (_BUILT_IN, "MLXDynamicShardInferenceEngine", True),
    "tinygrad": (_BUILT_IN, "TinygradDynamicShardInferenceEngine", True),
    "rkllm": (_BUILT_IN, "RKLLMInferenceEngine", True),
    "dummy": (_BUILT_IN, "DummyInferenceEngine", False),
}


def _load_all(group: str) -> list[Any]:
    """Load every entry point of a group; a broken one is passed over, loud only with DEBUG."""
    loaded = []
    for name, entry in _entries(group).items():
        try:
            loaded.append(entry.load())
        except Exception as error:
            if DEBUG >= 1:
                print(f"entry point {name} of {group} failed: {error}")
    return loaded


def _entries(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Return a group's entry points by name; of two with one name the later wins."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def discover_inference_engines() -> dict[str, Row]:
    """Return module, class and 'wants a downloader' by name. A built-in name always wins."""
    plugins: dict[str, Row] = {}
    for name, entry in _entries("exo.inference_engines").items():
        module, class_name = entry.value.rsplit(":", 1)
        plugins[name] = (module, class_name, True)
    return {**plugins, **BUILTIN_ENGINES}


def discover_models() -> dict[str, Any]:
    """Return the cards of all plugins; of two cards with one id the later wins."""
    cards: dict[str, Any] = {}
    for registration in _load_all("exo.models"):
        if isinstance(registration, dict):
            cards.update(registration)
    return cards


def discover_device_detectors() -> list[Callable[[], str | None]]:
    """Return the plugins' detectors. Nothing in exo calls them."""
    return [detector for detector in _load_all("exo.device_detectors") if callable(detector)]


def load_inference_engine(engine_name: str, shard_downloader: Any) -> Any:
    """Make an engine by name, with the downloader as its only, positional, argument.

    Raises:
        ValueError: no engine has that name.
    """
    engines = discover_inference_engines()
    if engine_name not in engines:
        raise ValueError(f"no engine is called {engine_name}; there are {', '.join(engines)}")
    module, class_name, wants_downloader = engines[engine_name]
    engine_class = getattr(importlib.import_module(module), class_name)
    return engine_class(shard_downloader) if wants_downloader else engine_class()


def list_available_engines() -> list[str]:
    """Return the names of all engines, sorted."""
    return sorted(discover_inference_engines())
