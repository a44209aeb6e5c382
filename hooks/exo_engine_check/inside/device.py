"""The device that the plugin brings for its checks: `[tool.exo-engine]` names it."""

import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .check import BrokenError, NotRunError
from .events import Events, shorten


@dataclass
class Device:
    """A model that the plugin can answer with on this machine."""

    model: str
    layers: int
    first: str  # of the plugin's models
    folder: Path  # where exo would have put the model's files
    handle: Any  # what the device's function has given

    def __post_init__(self) -> None:
        self.prompt = str(getattr(self.handle, "prompt", "Hello, exo"))
        self.fail: Callable[[], Any] | None = getattr(self.handle, "fail", None)


@contextlib.contextmanager
def start(events: Events, exo: Any, class_name: str, cards: dict[str, Any]) -> Iterator[Device]:
    """Start the device; it ends with the block.

    It answers with the model that it names, with a tiny one where it has written its config.json,
    else with the plugin's first.
    """
    tiny, repo = "exo-engine-check", "exo-engine-check/device"
    first = tiny
    for name, card in reversed(cards.items()):
        repos = card.get("repo") if isinstance(card, dict) else None
        if isinstance(repos, dict) and isinstance(repos.get(class_name), str):
            first, repo = str(name), repos[class_name]
    folder = Path(events.request["home"], "downloads", repo.replace("/", "--"))
    folder.mkdir(parents=True, exist_ok=True)
    with running(events, folder) as handle:
        config = folder / "config.json"
        written = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        model = str(getattr(handle, "model", tiny if "num_hidden_layers" in written else first))
        layers = exo.models.model_cards.get(model, {}).get("layers")
        if type(layers := written.get("num_hidden_layers", layers)) is not int or layers < 1:
            needs = "a config.json with num_hidden_layers, or a card with layers"
            raise BrokenError(f"the device needs {needs}; it has {shorten(layers)}")
        exo.models.model_cards[model] = {"layers": layers, "repo": {class_name: repo}}
        yield Device(model, layers, first, folder, handle)


@contextlib.contextmanager
def running(events: Events, folder: Path) -> Iterator[Any]:
    """What the device's function gives for a folder. Raises NotRunError, BrokenError."""
    named = events.request["device"]
    if not named:
        raise NotRunError("[tool.exo-engine] names no device to answer with (docs/checking.md)")
    events.take_turn()
    with contextlib.ExitStack() as stack:
        with events.step(f"the device {named}"):
            handle = _function(named, events.request["project"])(folder)
            if hasattr(handle, "__enter__"):
                handle = stack.enter_context(handle)
        yield handle


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
