"""A node: JSON lines on stdin say what to do, JSON lines on stdout what came of it.

{"cards": true}        every model's card
{"modules": true}      what this process has imported
{"place": "model"}     fetch what is missing, start a runner and load
{"ask": "task", ...}   an answer; the other fields are those of TextGenerationTaskParams
{"cancel": "task"}     {"delete": true}

The end of stdin ends the node, and its runner as exo does.
"""

import argparse
import asyncio
import json
import sys
import threading
from dataclasses import asdict, is_dataclass
from multiprocessing.connection import wait
from typing import Any

from exo.download.download_utils import resolve_existing_model
from exo.download.shard_downloader import ShardDownloader
from exo.records import (
    BoundInstance,
    ModelCard,
    ModelId,
    OtherTask,
    PipelineShardMetadata,
    TaskId,
    TextGeneration,
    TextGenerationTaskParams,
)
from exo.shared.models import model_cards
from exo.worker.runner import supervisor


class HubDownloader(ShardDownloader):
    """exo's own, which has no network here."""

    def on_progress(self, callback: Any) -> None:
        """Forget it."""

    async def ensure_shard(self, shard: Any, config_only: bool = False) -> Any:
        """Fail as without a network."""
        raise OSError(f"the hub gave no {shard.model_card.model_id}")

    async def get_shard_download_status(self) -> Any:
        """Nothing."""
        for _ in ():
            yield _

    get_shard_download_status_for_shard = ensure_shard


def exo_shard_downloader(max_parallel_downloads: int = 8, offline: bool = False) -> ShardDownloader:
    """What fetches models; the node looks it up here."""
    return HubDownloader()


def cards() -> list[ModelCard]:
    """Every model's."""
    return asyncio.run(model_cards.card_cache.list_all())


def say(what: str, task: str = "", more: Any = None) -> None:
    """One line on stdout."""
    values = asdict(more) if is_dataclass(more) and not isinstance(more, type) else more
    print(json.dumps({"what": what, "task": task, "more": values}, default=str), flush=True)


class Node:
    """One instance at a time."""

    def __init__(self) -> None:
        self.runner: Any = None

    def do(self, command: dict[str, Any]) -> None:
        """One line of stdin."""
        if "cards" in command:
            say("cards", "", [asdict(card) for card in cards()])
        elif "modules" in command:
            say("modules", "", list(sys.modules))
        elif "place" in command:
            self._place(ModelId(command["place"]))
        elif "cancel" in command:
            self.runner.cancels.send(TaskId(command["cancel"]))
        elif "delete" in command:
            self.runner.tasks.send(OtherTask(task_id=TaskId("end"), kind="Shutdown"))
        elif command.pop("image", False):
            task_id = TaskId(command["ask"])
            self.runner.tasks.send(OtherTask(task_id=task_id, kind="ImageGeneration"))
        else:
            task_id = TaskId(command.pop("ask"))
            params = TextGenerationTaskParams(**({"model": ModelId("any"), "input": []} | command))
            self.runner.tasks.send(TextGeneration(task_id=task_id, task_params=params))

    def _place(self, model_id: ModelId) -> None:
        [card] = [card for card in cards() if card.model_id == model_id]
        layers = {"start_layer": 0, "end_layer": card.n_layers, "n_layers": card.n_layers}
        shard = PipelineShardMetadata(model_card=card, device_rank=0, world_size=1, **layers)
        if resolve_existing_model(model_id) is None:
            try:
                asyncio.run(self._download(shard))
            except Exception as error:
                say("DownloadFailed", "", str(error))
                return
        bound = BoundInstance(bound_shard=shard)
        self.runner = supervisor.RunnerSupervisor.create(bound_instance=bound)
        say("pid", "", self.runner.process.pid)
        threading.Thread(target=self._listen, args=(self.runner,), daemon=True).start()
        self.runner.tasks.send(OtherTask(task_id=TaskId("load"), kind="LoadModel"))

    async def _download(self, shard: PipelineShardMetadata) -> None:
        async def progress(_: Any, event: Any) -> None:
            say(event.status, "", [event.downloaded.in_bytes, event.total.in_bytes])

        downloader = exo_shard_downloader()
        downloader.on_progress(progress)
        await downloader.get_shard_download_status_for_shard(shard)
        await downloader.ensure_shard(shard)

    def _listen(self, runner: Any) -> None:
        """Say what the runner says, and at last how its process ended."""
        alive = True
        while alive:
            wait([runner.process.sentinel, runner.events.reader])
            alive = runner.process.is_alive()
            for event in runner.events.collect():
                say(*event)
        say("ended", "", runner.process.exitcode)


def main() -> None:
    """exo's command."""
    parser = argparse.ArgumentParser(prog="EXO")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--api-port", type=int, default=52415)
    parser.parse_args()
    say("node", "", sys.argv)
    node = Node()
    for line in sys.stdin:
        node.do(json.loads(line))
    if node.runner is not None:
        node.runner.stop()
