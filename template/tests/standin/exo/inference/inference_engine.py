"""The class that every engine extends."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from exo.download.shard_download import ShardDownloader
from exo.inference.plugin_discovery import discover_inference_engines, load_inference_engine
from exo.inference.shard import Shard

Array = np.ndarray[Any, np.dtype[Any]]
State = dict[str, Any]


class InferenceEngine(ABC):
    """exo's contract. A node calls more than the abstract methods: `ensure_shard` is not here."""

    session: dict[str, Any] = {}  # noqa: RUF012 - exo's fault, played: one dict for all engines

    @abstractmethod
    async def encode(self, shard: Shard, prompt: str) -> Array:
        """Text to token ids."""

    @abstractmethod
    async def sample(self, x: Array) -> Array:
        """Logits to one token id. A node calls it with `temp=` all the same."""

    @abstractmethod
    async def decode(self, shard: Shard, tokens: Array) -> str:
        """Token ids to text."""

    @abstractmethod
    async def infer_tensor(
        self,
        request_id: str,
        shard: Shard,
        input_data: Array,
        inference_state: State | None = None,
    ) -> tuple[Array, State | None]:
        """Run one step of a request."""

    @abstractmethod
    async def load_checkpoint(self, shard: Shard, path: str) -> None:
        """Load weights from `path`."""

    async def save_checkpoint(self, shard: Shard, path: str) -> None:  # noqa: B027 - as exo's
        """Save weights; most engines have nothing to save."""

    async def save_session(self, key: str, value: Any) -> None:
        """Keep `value`; in exo it lands in every engine's session."""
        self.session[key] = value

    async def clear_session(self) -> None:
        """Fail as exo does: a dict has no `empty`."""
        self.session.empty()  # type: ignore[attr-defined]  # exo's fault, played

    async def infer_prompt(
        self,
        request_id: str,
        shard: Shard,
        prompt: str,
        inference_state: State | None = None,
    ) -> tuple[Array, State | None]:
        """Encode the prompt and run it as one row of ids."""
        ids = await self.encode(shard, prompt)
        return await self.infer_tensor(request_id, shard, ids.reshape(1, -1), inference_state)


inference_engine_classes = {name: entry[1] for name, entry in discover_inference_engines().items()}


def get_inference_engine(inference_engine_name: str, shard_downloader: ShardDownloader) -> Any:
    """Make the engine of that name."""
    return load_inference_engine(inference_engine_name, shard_downloader)
