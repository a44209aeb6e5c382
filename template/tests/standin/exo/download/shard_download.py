"""The downloader that a node gives to its engine."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from exo.helpers import AsyncCallbackSystem
from exo.inference.shard import Shard


class ShardDownloader(ABC):
    """Brings a shard's files to this machine."""

    @abstractmethod
    async def ensure_shard(self, shard: Shard, inference_engine_name: str) -> Path:
        """Return the folder of the shard's files. The second argument is the engine's class."""

    @property
    @abstractmethod
    def on_progress(self) -> AsyncCallbackSystem[str, Any]:
        """Where progress is told."""

    @abstractmethod
    def get_shard_download_status(
        self, inference_engine_name: str
    ) -> AsyncIterator[tuple[Path, Any]]:
        """Tell how far every download is."""


class NoopShardDownloader(ShardDownloader):
    """Downloads nothing."""

    async def ensure_shard(self, shard: Shard, inference_engine_name: str) -> Path:
        """Return a folder that nobody filled."""
        return Path("/nonexistent/noop_shard")

    @property
    def on_progress(self) -> AsyncCallbackSystem[str, Any]:
        """Return callbacks that are never called."""
        return AsyncCallbackSystem()

    async def get_shard_download_status(
        self, inference_engine_name: str
    ) -> AsyncIterator[tuple[Path, Any]]:
        """Tell nothing."""
        nothing: tuple[tuple[Path, Any], ...] = ()
        for status in nothing:
            yield status
