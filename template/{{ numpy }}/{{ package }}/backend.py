"""The device: NumPy on the CPU. Rewrite this file for yours.

kit/core/contract.py says what the engine asks of it, kit/llama/llama.py what to compute.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .kit.core.contract import Array, Layers
from .kit.core.tokenizer import Tokenizer
from .kit.llama import llama, threads
from .kit.llama.cache import Cache
from .kit.llama.config import CheckpointError, Config
from .kit.llama.weights import load_model


class Backend:
    """Runs any slice of a checkpoint's layers, with a cache of keys and values per request."""

    contract = 1
    whole_model = False
    files = ("*.json", "*.safetensors")

    def __init__(self) -> None:
        self._model: llama.Model | None = None
        self._caches: dict[str, Cache] = {}

    def load(self, layers: Layers, folder: Path, tokenizer: Tokenizer) -> None:
        """Map the layers' weights. Raises CheckpointError, FileNotFoundError."""
        config = Config.from_folder(folder)
        if config.layers != layers.total:
            raise CheckpointError(
                f"the checkpoint in {folder} has {config.layers} layers, but the model card of "
                f"{layers.model} says {layers.total}: correct TABLE in models.py"
            )
        self._model = load_model(folder, config, layers.first, layers.last)
        threads.of_process().ready(self._model)

    def step(self, request_id: str, x: Array) -> Array:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        assert self._model is not None, "load() comes first"
        if request_id not in self._caches:
            self._caches[request_id] = Cache(self._model.config, len(self._model.layers))
        cache = self._caches[request_id]
        cache.make_room(x.shape[1])
        with threads.of_process().step(self._model, x.shape[1]):
            y = llama.forward(x[0], cache.length, cache.keys, cache.values, self._model)
        cache.length += x.shape[1]
        return y[None]  # [S, D] -> [1, S, D], or [1, V] -> [1, 1, V]

    def forget(self, request_id: str) -> None:
        """Drop a request's cache."""
        self._caches.pop(request_id, None)

    def size(self, request_id: str | None) -> int:
        """Bytes of a request's cache, or of the weights."""
        if request_id is not None:
            cache = self._caches[request_id]
            return int(cache.keys.nbytes + cache.values.nbytes)
        assert self._model is not None, "load() comes first"
        return self._model.nbytes

    def close(self) -> None:
        """Drop the weights and all caches."""
        self._model = None
        self._caches.clear()

    def check(self) -> str:
        """NumPy's version, the library that multiplies its matrices, and its threads."""
        built: Any = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        return f"NumPy {np.__version__}, {blas['name']} {blas['version']}, {threads.of_process()}"
