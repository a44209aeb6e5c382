"""What fetches models."""

from abc import ABC, abstractmethod
from typing import Any


class ShardDownloader(ABC):
    @abstractmethod
    async def ensure_shard(self, shard: Any, config_only: bool = False) -> Any: ...
    @abstractmethod
    def on_progress(self, callback: Any) -> None: ...
    @abstractmethod
    def get_shard_download_status(self) -> Any: ...
    @abstractmethod
    async def get_shard_download_status_for_shard(self, shard: Any) -> Any: ...
