"""The device: NumPy on the CPU. Rewrite this file for yours.

contract.py says what the engine asks of it, llama.py what to compute.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import llama
from .cache import Cache
from .config import CheckpointError, Config
from .weights import load_model


class Backend:
    """Runs any slice of a checkpoint's layers, with a cache of keys and values per request."""

    whole_model = False
    needs_files = True
    takes_text = False

    def __init__(self) -> None:
        self._model: llama.Model | None = None
        self._caches: dict[str, Cache] = {}

    def load(self, shard: Any, path: Path | None, tokenizer: Any) -> None:
        """Map the shard's layers. Raises CheckpointError, FileNotFoundError."""
        self.close()
        if path is None:
            raise CheckpointError("this backend needs the folder of the model's files")
        config = Config.from_folder(path)
        if config.layers != shard.n_layers:
            raise CheckpointError(
                f"the checkpoint in {path} has {config.layers} layers, but the model card of "
                f"{shard.model_id} says {shard.n_layers}: correct the card in models.py"
            )
        self._model = load_model(path, config, shard.start_layer, shard.end_layer)

    def forward(self, request_id: str, x: NDArray[Any]) -> NDArray[np.float32]:
        """Ids (1, S) or hidden states (1, S, D) to hidden states, or logits (1, 1, V)."""
        assert self._model is not None, "load() comes first"
        if request_id not in self._caches:
            self._caches[request_id] = Cache(self._model.config, len(self._model.layers))
        cache = self._caches[request_id]
        cache.make_room(x.shape[1])
        y = llama.forward(x[0], cache.length, cache.keys, cache.values, self._model)
        cache.length += x.shape[1]
        return y[None]  # [S, D] -> [1, S, D], or [1, V] -> [1, 1, V]

    def forget(self, request_id: str) -> None:
        """Drop a request's cache."""
        self._caches.pop(request_id, None)

    def close(self) -> None:
        """Drop the weights and all caches."""
        self._model = None
        self._caches.clear()

    def check(self) -> str:
        """NumPy's version, and the library and threads that multiply its matrices."""
        built: Any = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        threads = next((os.environ[name] for name in names if os.environ.get(name)), os.cpu_count())
        return f"NumPy {np.__version__}, {blas['name']} {blas['version']}, threads: {threads}"
