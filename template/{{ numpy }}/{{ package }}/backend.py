"""The device: NumPy on the CPU. Rewrite this file for yours.

kit/contract.py says what the engine asks of it, kit/llama/llama.py what to compute.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .kit.contract import Array, Layers
from .kit.llama import llama, operations, threads
from .kit.llama.cache import Cache
from .kit.llama.config import Config
from .kit.llama.weights import load_model
from .kit.repository.facts import RepositoryError
from .kit.text.tokenizer import Tokenizer


class Backend:
    """Runs any slice of a checkpoint's layers, with a cache of keys and values per request."""

    contract = 1
    whole_model = False
    files = ("*.json", "*.safetensors")
    block: int | None = (
        64  # short enough for others to go on meanwhile, long enough for products of matrices
    )

    def __init__(self) -> None:
        self.context: int | None = None
        self._model: llama.Model | None = None
        self._operations = llama.REFERENCE
        self._caches: dict[str, Cache] = {}

    def load(self, layers: Layers, folder: Path, tokenizer: Tokenizer) -> None:
        """Map the layers' weights. Raises RepositoryError, FileNotFoundError."""
        config = Config.from_folder(folder)
        if config.layers != layers.total:
            raise RepositoryError(
                f"the checkpoint in {folder} has {config.layers} layers, but the model card of "
                f"{layers.model} says {layers.total}: correct MODELS in models.py"
            )
        self.context = config.context_length
        if config.rope.kind == "dynamic":  # its angles follow the length: a prompt goes whole
            self.block = None
        self._operations = operations.own().operations  # those of operations.py, if you have one
        self._model = load_model(folder, config, layers.first, layers.last)
        threads.of_process().ready(self._model)

    def step(self, request_id: str, x: Array) -> Array:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        return self.step_batch([(request_id, x)])[0]

    def step_batch(self, steps: list[tuple[str, Array]]) -> list[Array]:
        """The same for several requests at once: their rows share the products of matrices."""
        assert self._model is not None, "load() comes first"
        self._model.files.check()
        caches = [self._cache(request_id) for request_id, _ in steps]
        for cache, (_, x) in zip(caches, steps, strict=True):
            cache.make_room(x.shape[1])  # a full context raises before anything has changed
        parts = [cache.part(x.shape[1]) for cache, (_, x) in zip(caches, steps, strict=True)]
        rows = np.concatenate([x[0] for _, x in steps])  # [S] or [S, D] each -> [R] or [R, D]
        with threads.of_process().step(self._model, len(rows), len(steps)):
            y = llama.forward(rows, parts, self._model, self._operations)
        for cache, part in zip(caches, parts, strict=True):
            cache.length = part.end
        counts = [part.length if self._model.head is None else 1 for part in parts]
        # [R, D] -> [1, S, D] each, or [B, V] -> [1, 1, V] each
        return [own[None] for own in np.split(y, np.cumsum(counts)[:-1])]

    def _cache(self, request_id: str) -> Cache:
        assert self._model is not None
        if request_id not in self._caches:
            self._caches[request_id] = Cache(self._model.config, len(self._model.layers))
        return self._caches[request_id]

    def reuse(self, request_id: str, other: str, length: int) -> None:
        """Begin a request with a copy of another's first positions."""
        if self.block is None:
            raise NotImplementedError("keys of dynamic rope have angles of their request's length")
        self._caches[request_id] = self._caches[other].copied(length)

    def forget(self, request_id: str) -> None:
        """Drop a request's cache."""
        self._caches.pop(request_id, None)

    def size(self, request_id: str | None) -> int:
        """Bytes of a request's cache, or of the weights."""
        if request_id is None:
            return 0 if self._model is None else self._model.nbytes
        cache = self._caches.get(request_id)
        return 0 if cache is None else int(cache.keys.nbytes + cache.values.nbytes)

    def close(self) -> None:
        """Drop the weights and all caches."""
        self._model = None
        self._caches.clear()

    def check(self) -> str:
        """NumPy's version, the library that multiplies its matrices, and its threads."""
        built: Any = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        return f"NumPy {np.__version__}, {blas['name']} {blas['version']}, {threads.of_process()}"
