"""exo 0.3 around a plugin: its model cards, and a runner that is driven as exo's worker does."""

import asyncio
import contextlib
import functools
import importlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import audit, device, host
from .check import BrokenError, NotThereError
from .events import Events
from .records_0_3 import bound, card_of, load, plain

GROUP = "exo_engine_template.plugins"
LOAD_SECONDS = 20.0
ENDLESS = 100_000  # tokens of an answer that is ended in its middle
STOP_SECONDS = 3.0  # exo waits no longer for a runner to end


def find(events: Events) -> None:
    """The exo 0.3 of this Python, or the stand-in; also for programs."""
    host.put_on_path(events, "0.3", "exo.worker.runner.bootstrap")
    home = events.request["home"]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "EXO_DASHBOARD_DIR": home,  # any folder does
        "EXO_DEFAULT_MODELS_DIR": f"{home}/models",
        "EXO_MODELS_READ_ONLY_DIRS": f"{home}/staged/models",
    }


class Node:
    """The plugin as exo 0.3 has it, with its first model, or the one that the device names."""

    def __init__(self, events: Events) -> None:
        points = [e for e in events.request["entry_points"] if e["group"] == GROUP]
        if not points:
            raise NotThereError(f"exo 0.3 doesn't find it: it has no entry point of {GROUP}")
        find(events)
        self.events, self.seconds = events, float(events.request["seconds"])
        self.folder = Path(events.request["home"], "device")
        self.staged = Path(events.request["home"], "staged")
        module, _, name = points[0]["value"].rpartition(":")
        with events.step(f"importing {module}"):
            self.plugin: Any = getattr(importlib.import_module(module), name)
            self.package = str(self.plugin.package)
        self._stack = contextlib.ExitStack()  # it ends with the process
        self._runner: Runner | None = None

    @functools.cached_property
    def cards(self) -> list[dict[str, Any]]:
        """The cards that the plugin writes, as exo would read them."""
        with self.events.step("writing the model cards for exo 0.3"):
            shutil.rmtree(self.staged, ignore_errors=True)  # as the launcher does
            self.staged.mkdir(parents=True)
            self.plugin.stage(self.staged)
            files = sorted(self.staged.glob("cards/*.toml"))
            return [tomllib.loads(path.read_text(encoding="utf-8")) for path in files]

    @functools.cached_property
    def handle(self) -> Any:
        """What the device's function has given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._stack.enter_context(device.running(self.events, self.folder))

    @functools.cached_property
    def card(self) -> Any:
        """The card of the model that answers; its layers are those of the device's files."""
        model, cards = str(getattr(self.handle, "model", "")), self.cards
        if not cards:
            raise BrokenError("the plugin offers exo 0.3 no model")
        # An id of exo 0.0's is one of exo 0.3's with the engine's name behind it.
        names = {str(card["model_id"]).partition("/")[2]: card for card in cards}
        fit = [name for name in names if model == name or model.startswith(f"{name}-")]
        values = names[max(fit, key=len)] if fit else cards[0]
        if (config := self.folder / "config.json").is_file():
            layers = json.loads(config.read_text(encoding="utf-8")).get("num_hidden_layers")
            values = values | {"n_layers": layers or values["n_layers"]}
        place = Path(os.environ["EXO_DEFAULT_MODELS_DIR"], values["model_id"].replace("/", "--"))
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(self.folder)
        index = {"metadata": {}, "weight_map": {"": "config.json"}}
        (self.folder / "config.json").touch()
        (self.folder / "check.safetensors.index.json").write_text(json.dumps(index))
        return card_of(values)

    async def runner(self) -> "Runner":
        """A runner that has loaded the model: one for all checks, a new one where that has ended.

        There is one at a time: a device may be one process's alone.
        """
        if self._runner is None or self._runner.has_ended():
            self._runner = Runner(self, self.card)
            with self.events.step("loading a model on exo 0.3"):
                await self._runner.load()
        return self._runner


class Reply:
    """What comes of one request."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.text, self.error, self.finish = "", "", ""
        self.usage: Any = None
        self.ended = False
        self.times: list[float] = []  # of chunks, time.monotonic()

    def take(self, kind: str, value: Any) -> None:
        if kind == "FinishedResponse":
            self.ended = True
        elif kind == "ErrorChunk":
            self.error = str(value.error_message)
        else:
            self.times.append(time.monotonic())
            self.chunks.append(value)
            self.text += getattr(value, "text", "")
            self.finish = getattr(value, "finish_reason", None) or self.finish
            self.usage = getattr(value, "usage", None) or self.usage


class Runner:
    """A process of the plugin's for one model, as exo starts one, and its three queues."""

    def __init__(self, node: Node, card: Any) -> None:
        self.node, self.replies, self.kinds = node, dict[str, Reply](), list[tuple[str, Any]]()
        self.ids = (f"request-{n}" for n in range(1_000))
        channel = load("exo.utils.channels").mp_channel
        to_us, self.events = channel()
        self.tasks, to_do = channel()
        self.cancels, to_cancel = channel()
        self.bound, self.instance = bound(card)
        logger = getattr(load("exo.worker.runner.bootstrap"), "logger", logging.getLogger())
        arguments = (self.bound, to_us, to_do, to_cancel, logger)
        # A fork is there at once; exo spawns, and so imports the plugin anew.
        process = multiprocessing.get_context("fork").Process
        self.process = process(target=node.plugin.entrypoint, args=arguments, daemon=True)
        with audit.own_forks():
            self.process.start()

    async def load(self) -> None:
        """Load and warm up. Raises BrokenError."""
        if not hasattr(self.instance, "instance_id"):
            self._send("OtherTask", kind="LoadModel")
        else:
            self._send("LoadModel")
            await self.until(lambda: self._values("RunnerLoaded"), LOAD_SECONDS)
            self._send("StartWarmup")
        if not await self.until(lambda: self._values("RunnerReady"), LOAD_SECONDS):
            raise BrokenError(f"a runner of exo 0.3 is not ready after {LOAD_SECONDS:g} s")

    def _send(self, name: str, **fields: Any) -> None:
        tasks = load("exo.shared.types.tasks")
        make = getattr(tasks, name, None) or getattr(load("exo.records"), name)
        if hasattr(self.instance, "instance_id"):
            fields["instance_id"] = self.instance.instance_id
        self.tasks.send(make(**{"task_id": tasks.TaskId(next(self.ids))} | fields))

    def ask(self, **params: Any) -> str:
        """Send a request; the id of its reply."""
        tasks, types = load("exo.shared.types.tasks"), load("exo.shared.types.text_generation")
        prompt = str(getattr(self.node.handle, "prompt", "Hello, exo"))
        defaults = {
            "model": self.bound.bound_shard.model_card.model_id,
            "input": [],
            "chat_template_messages": [{"role": "user", "content": prompt}],
            "max_output_tokens": 8,
            "temperature": 0.0,
        }
        task_id, fields = tasks.TaskId(next(self.ids)), {}
        if hasattr(self.instance, "instance_id"):
            fields["command_id"] = load("exo.shared.types.common").CommandId(task_id)
        self.replies[task_id] = Reply()
        values = types.TextGenerationTaskParams(**defaults | params)
        self._send("TextGeneration", task_id=task_id, task_params=values, **fields)
        return str(task_id)

    async def begin(self, tokens: int) -> tuple[str, Reply]:
        """Ask for a streamed answer, and wait for its first words; the request's id, the reply."""
        task = self.ask(stream=True, max_output_tokens=tokens)
        reply = self.replies[task]
        await self.until(lambda: reply.times or reply.ended)
        return task, reply

    async def answer(self, **params: Any) -> Reply:
        """Ask, and wait for the end. Raises BrokenError."""
        reply = self.replies[self.ask(**params)]
        if not await self.until(lambda: reply.ended):
            raise BrokenError(f"an answer on exo 0.3 has not ended after {self.node.seconds:g} s")
        return reply

    async def cancel(self, task: str) -> bool:
        """Cancel a request, as for a client that is gone; whether the runner is free then."""
        before = len(self._values("RunnerReady"))
        self.cancels.send(load("exo.shared.types.tasks").TaskId(task))
        return await self.until(lambda: len(self._values("RunnerReady")) > before)

    async def until(self, done: Callable[[], Any], seconds: float = 0.0) -> bool:
        """Take what comes until something is so, or for a while. Raises BrokenError."""
        end = time.monotonic() + (seconds or self.node.seconds)
        while not done():
            alive = self.process.is_alive()
            for event in self._collect():
                self._take(*plain(event))
            if failed := self._values("RunnerFailed"):
                raise BrokenError(f"the runner fails: {failed[0].splitlines()[0]}")
            if not alive and not done():
                raise BrokenError(f"the runner has ended with {self.process.exitcode}")
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.005)
        return True

    def _collect(self) -> list[Any]:
        try:
            return list(self.events.collect())
        except Exception:  # the runner has closed its end, and exo's own receiver drops the rest
            with contextlib.suppress(Exception):
                return [self.events._state.buffer.get(timeout=0.1)]
            return []

    def _take(self, kind: str, task: str, value: Any) -> None:
        self.kinds.append((kind, value))
        if reply := self.replies.get(task):
            reply.take(kind, value)

    def _values(self, kind: str) -> list[Any]:
        """What each event of a kind has brought so far."""
        return [value for each, value in self.kinds if each == kind]

    def has_ended(self) -> bool:
        """Whether it answers no more."""
        return bool(self._values("RunnerFailed")) or not self.process.is_alive()

    async def stop(self) -> bool:
        """Send SIGTERM, as exo does at its end; whether the process ends in time."""
        self.process.terminate()
        await asyncio.to_thread(self.process.join, STOP_SECONDS)
        return not self.process.is_alive()
