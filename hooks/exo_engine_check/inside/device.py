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

TINY, TINY_REPO = "exo-engine-check-tiny", "exo-engine-check/tiny"
PROMPT = "Hello, exo"


@dataclass
class Device:
    """A model that the plugin can answer with on this machine."""

    model: str
    layers: int
    prompt: str = PROMPT
    fail: Callable[[], Any] | None = None
    handle: Any = None  # what the function has given


class Devices:
    """Starts the plugin's device, more than once where a check breaks it."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.named = [key for key in ("device", "tiny-model") if report.request[key]]
        self.home = Path(report.request["home"])
        self.repo = TINY_REPO
        self._kept = contextlib.ExitStack()

    @property
    def folder(self) -> Path:
        """Where exo would have put the model's files."""
        return self.home / "downloads" / self.repo.replace("/", "--")

    def downloader(self, exo: Any) -> Any:
        """exo's downloader, for a model that lies in a folder already."""
        base: Any = exo.downloads.NoopShardDownloader

        async def ensure_shard(_: Any, shard: Any, inference_engine_name: str) -> Path:
            return self.folder

        return type("Local", (base,), {"ensure_shard": ensure_shard})()

    def enter(self, exo: Any, class_name: str, cards: dict[str, Any]) -> Device:
        """Start the device for the rest of this process."""
        return self._kept.enter_context(self.open(exo, class_name, cards))

    @contextlib.contextmanager
    def open(self, exo: Any, class_name: str, cards: dict[str, Any]) -> Iterator[Device]:
        """Start the device; it ends with the block."""
        model = self._model(class_name, cards)
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            handle: Any = None
            for key in self.named:
                with self.report.step(f"{key} {self.report.request[key]}"):
                    given = self._function(key)(self.folder)
                    if hasattr(given, "__enter__"):
                        given = stack.enter_context(given)
                    handle = given if key == "device" or isinstance(given, str) else handle
            told = handle if isinstance(handle, str) else getattr(handle, "model", None)
            known = isinstance(told, str) and told in exo.models.model_cards
            device = Device(str(told) if known else model, 0)
            device.layers = self._layers(exo, device.model)
            device.prompt = str(getattr(handle, "prompt", PROMPT))
            device.fail, device.handle = getattr(handle, "fail", None), handle
            owners = {class_name: self.repo}
            exo.models.model_cards[device.model] = {"layers": device.layers, "repo": owners}
            yield device

    def _model(self, class_name: str, cards: dict[str, Any]) -> str:
        """A device answers with the plugin's first model; a tiny model is one of its own."""
        for name, card in cards.items() if "device" in self.named else ():
            repos = card.get("repo") if isinstance(card, dict) else None
            if isinstance(repos, dict) and isinstance(repos.get(class_name), str):
                self.repo = repos[class_name]
                return str(name)
        return TINY

    def _layers(self, exo: Any, model: str) -> int:
        config = self.folder / "config.json"
        layers = None
        if config.is_file():
            layers = json.loads(config.read_text(encoding="utf-8")).get("num_hidden_layers")
        if layers is None:
            layers = exo.models.model_cards.get(model, {}).get("layers")
        if not isinstance(layers, int) or layers < 1:
            named = " and ".join(self.named)
            raise BrokenError(
                f"{named}: there is no config.json with num_hidden_layers, and no card of {model}"
                f" with layers, but {shorten(layers)}"
            )
        return layers

    def _function(self, key: str) -> Callable[[Path], Any]:
        """What `module:function` or `folder/file.py:function` names."""
        module, _, name = str(self.report.request[key]).rpartition(":")
        if module.endswith(".py"):
            path = Path(self.report.request["project"], module)
            if str(path.parent) not in sys.path:
                sys.path.append(str(path.parent))  # for the modules beside it
            spec = importlib.util.spec_from_file_location(f"_device_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            loaded = sys.modules.get(spec.name)
            if loaded is None:
                loaded = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = loaded  # dataclasses look there
                spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        function: Callable[[Path], Any] = getattr(loaded, name)
        if inspect.isgeneratorfunction(function):
            return contextlib.contextmanager(function)
        return function
