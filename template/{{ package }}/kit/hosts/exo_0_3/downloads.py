"""Downloads of the plugin's models, under its own ids: exo's would ask the hub for those."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal

from exo.download.download_utils import (
    RepoDownloadProgress,
    build_model_path,
    resolve_existing_model,
)
from exo.download.shard_downloader import ShardDownloader
from exo.shared.models.model_cards import card_cache
from exo.shared.types.common import ModelId
from exo.shared.types.memory import Memory
from exo.shared.types.worker.shards import PipelineShardMetadata, ShardMetadata

from ...plugin import Plugin
from ...repository import files
from . import jobs
from .cards import index, model_of

PROGRESS_SECONDS = 0.5
Status = Literal["not_started", "in_progress", "complete"]
Progress = Callable[[ShardMetadata, RepoDownloadProgress], Awaitable[None]]


class Downloader(ShardDownloader):
    """exo's downloader for all models but the plugin's, which a process of their own fetches."""

    def __init__(self, plugin: Plugin, inner: ShardDownloader) -> None:
        self._plugin, self._inner = plugin, inner
        self._callbacks: list[Progress] = []
        self._running: dict[str, asyncio.Task[Path]] = {}

    def on_progress(self, callback: Progress) -> None:
        """Tell this callback too."""
        self._callbacks.append(callback)
        self._inner.on_progress(callback)

    async def ensure_shard(self, shard: ShardMetadata, config_only: bool = False) -> Path:
        """The folder with a model's files, fetched where they are not here."""
        name = shard.model_card.model_id
        if not self._is_ours(name):
            folder: Path = await self._inner.ensure_shard(shard, config_only)
            return folder
        if name not in self._running:
            self._running[name] = asyncio.create_task(self._fetch(shard))
        try:
            return await self._running[name]
        finally:
            self._running.pop(name, None)

    def _is_ours(self, name: ModelId) -> bool:
        return name.partition("/")[0] == self._plugin.package

    async def _fetch(self, shard: ShardMetadata) -> Path:
        """Run the job `fetch`, and tell of its progress; a cancel ends its process."""
        name = shard.model_card.model_id
        folder, begun = build_model_path(name), time.monotonic()
        command = jobs.command(self._plugin, "fetch", name, folder)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            async for line in process.stdout:
                done, total = json.loads(line)
                seconds = time.monotonic() - begun
                await self._tell(shard, _progress(shard, done, total, "in_progress", seconds))
            words = (await process.stderr.read()).decode("utf-8", "replace").strip()
            if await process.wait():
                raise RuntimeError(words.splitlines()[-1] if words else f"{name} was not fetched")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        seconds = time.monotonic() - begun
        await self._tell(shard, _progress(shard, total, total, "complete", seconds))
        return folder

    async def _tell(self, shard: ShardMetadata, progress: RepoDownloadProgress) -> None:
        for callback in self._callbacks:
            await callback(shard, progress)

    async def get_shard_download_status(
        self,
    ) -> AsyncIterator[tuple[Path, RepoDownloadProgress]]:
        """How far each of the plugin's models is, then each of exo's."""
        for card in await card_cache.list_all():
            if self._is_ours(card.model_id):
                total = card.n_layers
                whole = {"start_layer": 0, "end_layer": total, "n_layers": total}
                shard = PipelineShardMetadata(model_card=card, device_rank=0, world_size=1, **whole)
                yield build_model_path(card.model_id), self._status(shard)
        async for path, progress in self._inner.get_shard_download_status():
            if not self._is_ours(progress.shard.model_card.model_id):  # exo's has asked the hub
                yield path, progress

    async def get_shard_download_status_for_shard(
        self, shard: ShardMetadata
    ) -> RepoDownloadProgress:
        """How far a model is."""
        if self._is_ours(shard.model_card.model_id):
            return self._status(shard)
        status: RepoDownloadProgress
        status = await self._inner.get_shard_download_status_for_shard(shard)
        return status

    def _status(self, shard: ShardMetadata) -> RepoDownloadProgress:
        """What is here. Bytes of this session would mean to exo that a download is under way."""
        name, total = shard.model_card.model_id, shard.model_card.storage_size.in_bytes
        if resolve_existing_model(name) is not None:
            return _progress(shard, total, total, "complete")
        return _progress(shard, size_of(build_model_path(name)), total, "not_started")


def _progress(
    shard: ShardMetadata, done: int, total: int, status: Status, seconds: float = 0.0
) -> RepoDownloadProgress:
    speed = done / seconds if seconds > 0 else 0.0  # bytes a second
    return RepoDownloadProgress(
        repo_id=shard.model_card.model_id,
        repo_revision="main",
        shard=shard,
        completed_files=int(status == "complete"),
        total_files=1,
        downloaded=Memory(in_bytes=done),
        downloaded_this_session=Memory(in_bytes=0 if status == "not_started" else done),
        total=Memory(in_bytes=total),
        overall_speed=speed,
        overall_eta=timedelta(seconds=(total - done) / speed if speed > 0 else 0),
        status=status,
    )


def size_of(folder: Path) -> int:
    """The bytes in a folder, of files that are on their way too."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it was just moved into its place
            size += path.stat().st_size if path.is_file() else 0
    return size


def fetch(plugin: Plugin, name: str, place: str) -> None:
    """A job: a model's files from the hub; a line of JSON, [bytes here, of all], now and then."""
    model = model_of(plugin, name, 0)
    patterns = (*getattr(plugin.load_backend(), "files", ()), *files.TOKENIZER)
    total = files.hub_bytes(model.repository, patterns)
    folder, done = Path(place), threading.Event()

    def report() -> None:
        while not done.wait(PROGRESS_SECONDS):
            print(json.dumps([min(size_of(folder), total), total]), flush=True)

    print(json.dumps([0, total]), flush=True)
    threading.Thread(target=report, daemon=True).start()
    files.fetch(model.repository, patterns, folder)
    done.set()
    index(folder, plugin.package)
