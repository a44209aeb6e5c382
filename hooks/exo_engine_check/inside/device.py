"""The device that the plugin brings for its checks: `[tool.exo-engine]` names it."""

import contextlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core import BrokenError, Report, shorten

PROMPT = "Hello, exo"


@dataclass
class Device:
    """A model that the plugin can answer with on this machine."""

    model: str
    layers: int
    prompt: str
    fail: Callable[[], Any] | None
    handle: Any  # what the function has given


@contextlib.contextmanager
def start(report: Report, exo: Any, class_name: str, cards: dict[str, Any]) -> Iterator[Device]:
    """Start the device; it ends with the block.

    A device answers with the plugin's first model; a tiny model is one of its own.
    """
    model, repo = "exo-engine-check-tiny", "exo-engine-check/tiny"
    if report.request["device"]:
        model, repo = first(class_name, cards) or (model, repo)
    folder = folder_of(report, repo)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        handle: Any = None
        for key in ("tiny-model", "device"):
            if named := report.request[key]:
                with report.step(f"{key} {named}"):
                    handle = _function(named, report.request["project"])(folder)
                    if hasattr(handle, "__enter__"):
                        handle = stack.enter_context(handle)
        told = getattr(handle, "model", None)
        if told in exo.models.model_cards:
            model = str(told)
        layers = _layers(folder, exo.models.model_cards.get(model, {}).get("layers"))
        exo.models.model_cards[model] = {"layers": layers, "repo": {class_name: repo}}
        prompt, fail = getattr(handle, "prompt", PROMPT), getattr(handle, "fail", None)
        yield Device(model, layers, str(prompt), fail, handle)


def first(class_name: str, cards: dict[str, Any]) -> tuple[str, str] | None:
    """The first model that has a repository for the engine, and that."""
    for name, card in cards.items():
        repos = card.get("repo") if isinstance(card, dict) else None
        if isinstance(repos, dict) and isinstance(repos.get(class_name), str):
            return str(name), repos[class_name]
    return None


def folder_of(report: Report, repo: str) -> Path:
    """Where exo would have put the model's files."""
    return Path(report.request["home"], "downloads", repo.replace("/", "--"))


def _layers(folder: Path, of_card: Any) -> int:
    config = folder / "config.json"
    written = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    layers = written.get("num_hidden_layers", of_card)
    if not isinstance(layers, int) or layers < 1:
        raise BrokenError(
            "the device has neither a config.json with num_hidden_layers nor a card with layers, "
            f"but {shorten(layers)}"
        )
    return layers


def _function(named: str, project: str) -> Callable[[Path], Any]:
    """What `module:function` or `folder/file.py:function` names."""
    module, _, name = named.rpartition(":")
    if module.endswith(".py"):
        path = Path(project, module)
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # for the modules beside it
        module = path.stem
    function: Callable[[Path], Any] = getattr(importlib.import_module(module), name)
    if inspect.isgeneratorfunction(function):
        return contextlib.contextmanager(function)
    return function
