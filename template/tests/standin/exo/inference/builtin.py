"""exo's own engines, under the names that it keeps for itself: they load, and echo."""

from typing import Any

import numpy as np
from exo.inference.inference_engine import Array, InferenceEngine, State
from exo.inference.shard import Shard


class EchoTokenizer:
    """One id a character."""

    eos_token_id = 0

    def encode(self, text: str) -> list[int]:
        """Text to code points."""
        return [ord(character) for character in text]

    def decode(self, ids: list[int]) -> str:
        """Code points to text."""
        return "".join(map(chr, ids))


class BuiltInEngine(InferenceEngine):
    """An engine that hands its input back and ends at once."""

    def __init__(self, shard_downloader: Any = None) -> None:
        self.shard_downloader = shard_downloader
        self.shard: Shard | None = None
        self.tokenizer = EchoTokenizer()

    async def encode(self, shard: Shard, prompt: str) -> Array:
        """Text to code points."""
        return np.array(self.tokenizer.encode(prompt), dtype=np.int64)

    async def decode(self, shard: Shard, tokens: Array) -> str:
        """Code points to text."""
        return self.tokenizer.decode(tokens.tolist())

    async def sample(self, x: Array, temp: float = 0.0, top_p: float = 1.0) -> Array:
        """End the answer."""
        return np.array([self.tokenizer.eos_token_id], dtype=np.int64)

    async def infer_tensor(
        self,
        request_id: str,
        shard: Shard,
        input_data: Array,
        inference_state: State | None = None,
    ) -> tuple[Array, State | None]:
        """Hand the input back."""
        return input_data, inference_state

    async def ensure_shard(self, shard: Shard) -> None:
        """Remember the shard."""
        self.shard = shard

    async def load_checkpoint(self, shard: Shard, path: str) -> None:
        """Remember the shard."""
        await self.ensure_shard(shard)


class MLXDynamicShardInferenceEngine(BuiltInEngine):
    """`mlx`."""


class TinygradDynamicShardInferenceEngine(BuiltInEngine):
    """`tinygrad`, which exo puts in a plugin's place."""


class RKLLMInferenceEngine(BuiltInEngine):
    """`rkllm`."""


class DummyInferenceEngine(BuiltInEngine):
    """`dummy`."""
