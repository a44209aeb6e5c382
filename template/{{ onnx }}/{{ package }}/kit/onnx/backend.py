"""The device: ONNX Runtime, on whichever of its providers.

Nothing of ONNX Runtime is imported before it is needed: exo and the command read this class where
no build is installed, and say which one to install.
"""

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, cast

import numpy as np

from ..contract import Array, Layers
from ..onnx import answers, builds
from ..text.tokenizer import Tokenizer
from .export_files import EXPORTS, export_in, needed_files
from .plan import Plan, export_setting, planned, whole_asked


class OnnxBackend:
    """Runs any slice of a checkpoint's layers, or of a finished export's."""

    contract: ClassVar[int] = 1
    whole_model: ClassVar[bool] = whole_asked()
    files: ClassVar[tuple[str, ...]] = needed_files()
    local_files: ClassVar[tuple[str, ...]] = () if export_setting() else EXPORTS
    provider: ClassVar[str] = answers.PROVIDER
    plugin: ClassVar[str] = answers.PLUGIN

    def __init__(self) -> None:
        self._loaded: Any = None
        self._requests: dict[str, Any] = {}

    def plan(self) -> Plan:
        """What runs how: the settings, over the provider of this class."""
        return planned(self.provider)

    def graph(self, config: Any, first: int, last: int, kind: Any) -> Any:
        """The ONNX model of a checkpoint's layers (kit/onnx/graph.py)."""
        return _part("graph").build(config, first, last, kind)

    def load(self, layers: Layers, folder: Path, tokenizer: Tokenizer | None) -> None:
        """Make a session of the layers. Raises a sentence of what is wrong."""
        builds.the_one()
        plan = self.plan()
        provider = _part("providers").chosen(plan, self.plugin)
        export = export_in(folder)
        if export is None:
            kind = _part("checkpoint").CheckpointLayers
            self._loaded = kind(layers, folder, plan, provider, self.graph)
        else:
            self._loaded = _part("exported").ExportLayers(layers, export, plan, provider)
        self.block, self.context = self._loaded.block, self._loaded.context

    def step(self, request_id: str, x: Array) -> Array:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        return cast(Array, self._loaded.step(self._request(request_id), x))

    def step_batch(self, steps: list[tuple[str, Array]]) -> list[Array | Exception]:
        """The same for several requests at once, to rounding; an exception where one fails."""
        own = [(self._request(request_id), x) for request_id, x in steps]
        return cast(list[Array | Exception], self._loaded.step_batch(own))

    def _request(self, request_id: str) -> Any:
        assert self._loaded is not None, "load() comes first"
        if request_id not in self._requests:
            self._requests[request_id] = self._loaded.request()
        return self._requests[request_id]

    def reuse(self, request_id: str, other: str, length: int) -> None:
        """Begin a request with a copy of another's first positions."""
        self._requests[request_id] = self._requests[other].copied(length)

    def size(self, request_id: str | None) -> int:
        """The bytes of a request's keys and values; with None, of the loaded weights."""
        if request_id is None:
            return int(self._loaded.size)
        request = self._requests.get(request_id)
        return int(request.size) if request else 0

    def forget(self, request_id: str) -> None:
        """Drop a request's keys and values."""
        if request := self._requests.pop(request_id, None):
            request.forget()

    def close(self) -> None:
        """Drop the session and all requests."""
        self._requests.clear()
        self._loaded = None

    def nodes(self) -> dict[str, int]:
        """The loaded graph's nodes by the provider that runs them."""
        return cast(dict[str, int], _part("providers").assigned(self._loaded.session))

    def check(self) -> str:
        """Build, provider, threads and providers here; a tiny model has run on it."""
        build = builds.the_one()
        providers, plan = _part("providers"), self.plan()
        provider = providers.chosen(plan, self.plugin)
        random = import_module(f"{__package__.removesuffix('onnx')}llama.random_checkpoint")
        with TemporaryDirectory() as name:
            folder, total = Path(name), random.DEFAULT["num_hidden_layers"]
            random.write_checkpoint(folder)
            self.load(Layers("check", 0, total - 1, total), folder, None)
            self.step("check", np.zeros((1, 1), np.int64))
            nodes = providers.summary(self.nodes())
            self.close()
        precision = plan.precision or ("float16" if provider.half else "float32")
        threads = f"{plan.threads or 'all'} threads"
        here = ", ".join(providers.available())
        what = f"{provider.name}, checkpoints in {precision}, {threads}"
        return f"{build}, {what}; nodes: {nodes}; here: {here}"


def _part(name: str) -> Any:
    """A module that needs ONNX Runtime."""
    return import_module(f"{__package__}.{name}")
