"""An engine: the id after n is n + 1 and the number of tokens before it."""

import asyncio
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from exo.inference.inference_engine import InferenceEngine

from .metrics import TOKENS

MAX_REQUESTS = 32


class EngineError(RuntimeError):
    """What a user should read."""


class Tokenizer:
    """One id a character."""

    def __init__(self, folder: Path) -> None:
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        end = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
        self.eos_token_id = vocabulary[end]

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(n % 256 for n in ids).decode("utf-8", "replace")


class StepsInferenceEngine(InferenceEngine):
    """Any layers of a model that adds."""

    def __init__(self, shard_downloader: Any) -> None:
        self.shard_downloader = shard_downloader
        self.shard: Any = None
        self.tokenizer: Any = None
        self.session: dict[str, Any] = {}
        self.requests: OrderedDict[str, list[Any]] = OrderedDict()
        self.loading = asyncio.Lock()

    async def save_session(self, key: str, value: Any) -> None:
        self.session[key] = value

    async def clear_session(self) -> None:
        self.session.clear()

    async def encode(self, shard: Any, prompt: str) -> Any:
        await self.ensure_shard(shard)
        return np.array(self.tokenizer.encode(prompt), dtype=np.int64)

    async def decode(self, shard: Any, tokens: Any) -> str:
        await self.ensure_shard(shard)
        return str(self.tokenizer.decode(tokens.tolist()))

    async def sample(self, x: Any, temp: float = 0.0, top_p: float = 1.0) -> Any:
        if np.issubdtype(x.dtype, np.integer):
            return x.reshape(-1)[-1:]
        return np.array([np.argmax(x[0, -1])])

    async def infer_tensor(
        self, request_id: str, shard: Any, input_data: Any, inference_state: Any = None
    ) -> Any:
        await self.ensure_shard(shard)
        try:
            output = self.step(request_id, shard, input_data)
        except Exception as error:
            self.forget(request_id)
            raise EngineError(f"the step failed: {error}") from error
        return output, inference_state

    def step(self, request_id: str, shard: Any, x: Any) -> Any:
        if shard.is_first_layer():
            if not np.issubdtype(x.dtype, np.integer):
                raise ValueError("the first layer wants ids")
            if x.max() > 256:
                raise ValueError(f"there is no token {x.max()}")
        inputs = self.requests.setdefault(request_id, [])
        self.requests.move_to_end(request_id)
        while len(self.requests) > MAX_REQUESTS:
            self.requests.popitem(last=False)
        hidden = x.astype(np.float32).reshape(1, -1, 1)
        inputs.append(hidden)
        hidden = hidden + shard.get_layer_count() / shard.n_layers
        if not shard.is_last_layer():
            return hidden
        TOKENS.labels("decode").inc()
        place = sum(part.shape[1] for part in inputs)
        logits = np.zeros((1, 1, 257), dtype=np.float32)
        logits[0, 0, round(float(hidden[0, -1, 0]) + place) % 257] = 1
        return logits

    def forget(self, request_id: str) -> None:
        self.requests.pop(request_id, None)

    async def ensure_shard(self, shard: Any) -> None:
        async with self.loading:
            if self.shard == shard:
                return
            folder = await self.shard_downloader.ensure_shard(shard, type(self).__name__)
            self.tokenizer = Tokenizer(folder)
            self.shard = shard

    async def load_checkpoint(self, shard: Any, path: str) -> None:
        await self.ensure_shard(shard)
