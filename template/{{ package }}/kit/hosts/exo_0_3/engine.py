"""exo 0.3's Builder and Engine, over the kit's engine.

They live in the process that exo starts for one instance of a model. exo calls step() in a loop on
that process's main thread; the kit's engine has an event loop on another, so that many requests
share the device.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Coroutine, Generator, Iterable
from concurrent.futures import Future
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from exo.api.types import GenerationStats, ToolCallItem, Usage
from exo.download.download_utils import build_model_path
from exo.shared.types.chunks import Chunk, ErrorChunk, TokenChunk, ToolCallChunk
from exo.shared.types.common import ModelId
from exo.shared.types.tasks import CANCEL_ALL_TASKS, GenerationTask, TaskId, TextGeneration
from exo.shared.types.text_generation import TextGenerationTaskParams
from exo.shared.types.worker.instances import BoundInstance
from exo.shared.types.worker.runner_response import (
    CancelledResponse,
    FinishedResponse,
    ModelLoadingResponse,
)
from exo.utils.channels import MpReceiver
from exo.worker.engines import base

from ...cards import Model
from ...contract import Layers, Piece, Request
from ...engine.engine import Engine
from ...engine.prompts import Prompts
from ...logs import one_line
from ...plugin import Plugin
from .cards import model_of
from .outbox import Outbox, Text, texts_of
from .task import exo_usage, finite, request_of, stats, top_logprobs

T = TypeVar("T")

STEP_SECONDS = 0.04  # that step() waits: exo hands over a new request between two of them
PROGRESS_SECONDS = 0.5  # between two reports of a load
CLOSE_SECONDS = 2.0  # exo sends SIGTERM 3 s after it has ended
CANCELS_KEPT = 1000  # of tasks that have not come yet

_log = logging.getLogger(__name__)

Reply = Chunk | FinishedResponse | CancelledResponse


class Folder:
    """A model whose files are in one folder."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model, self._folder = model, folder

    async def tokenizer(self) -> Path:
        """The folder."""
        return self._folder

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        """The folder: whatever is wanted of the model is in there."""
        return self._folder


class PluginBuilder(base.Builder):
    """Loads the backend with the folder that exo has found complete."""

    def __init__(self, plugin: Plugin, cancels: MpReceiver[TaskId]) -> None:
        self._plugin, self._cancels = plugin, cancels
        self._engine: PluginEngine | None = None

    def connect(self, bound_instance: BoundInstance) -> None:
        """exo asks for it where an instance has several nodes."""
        raise RuntimeError("this engine runs a model on one node: place it on one node")

    def load(self, bound_instance: BoundInstance) -> Generator[ModelLoadingResponse]:
        """Load, and report about how far it is, in layers. Raises LoadError."""
        shard = bound_instance.bound_shard
        name, total = shard.model_card.model_id, shard.n_layers
        source = Folder(model_of(self._plugin, name, total), build_model_path(name))
        layers = Layers(name, shard.start_layer, shard.end_layer - 1, total)
        size = shard.model_card.storage_size.in_bytes
        yield ModelLoadingResponse(layers_loaded=0, total=total)
        engine = Engine(self._plugin.load_backend())
        self._engine = PluginEngine(name, engine, self._cancels)
        before = _resident()
        loaded = self._engine.start(engine.load(layers, source))
        while not loaded.done():
            with suppress(TimeoutError):
                loaded.exception(PROGRESS_SECONDS)
            part = (_resident() - before) / size if size > 0 else 0.0
            done = max(0, min(total - 1, int(total * part)))
            yield ModelLoadingResponse(layers_loaded=done, total=total)
        loaded.result()
        yield ModelLoadingResponse(layers_loaded=total, total=total)

    def build(self) -> base.Engine:
        """The engine, loaded."""
        assert self._engine is not None, "load() comes first"
        return self._engine

    def close(self) -> None:
        """Give the device back, however far this has come."""
        if self._engine is not None:
            self._engine.close()


class PluginEngine(base.Engine):
    """Many answers at once, each a coroutine; what they say comes out of step(), in order."""

    def __init__(self, model: ModelId, engine: Engine, cancels: MpReceiver[TaskId]) -> None:
        self._model, self._engine, self._cancels = model, engine, cancels
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="loop", daemon=True).start()
        self._cancelled_tasks: set[TaskId] = set()
        self._answers: dict[TaskId, Future[None]] = {}
        self._outbox = Outbox()
        self._prompts = Prompts()
        self._closing = threading.Lock()
        self._closed = False

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the event loop's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def warmup(self) -> None:
        """Answer once, so that the first user does not wait for what is done once."""
        tokenizer = self._engine.tokenizer
        if self._engine.executor.answers or tokenizer is None:
            return
        ids = tuple(tokenizer.encode("a")) or (tokenizer.eos_token_id,)

        async def answer() -> None:
            async with aclosing(self._engine.answer(Request("warmup", "a", ids, 1))) as pieces:
                async for _ in pieces:
                    pass

        self.start(answer()).result()

    def submit(self, task: GenerationTask) -> None:
        """Start an answer."""
        self._cancelled_tasks.discard(CANCEL_ALL_TASKS)
        task_id = task.task_id
        params = task.task_params if isinstance(task, TextGeneration) else None
        self._outbox.open(task_id, streamed=params is not None and params.stream)
        if params is None:
            self._fail(task_id, f"this engine answers in text, and has no {type(task).__name__}")
        elif self.should_cancel(task_id):  # the cancel was faster than its task
            self._outbox.end(task_id, CancelledResponse())
        else:
            answer = self.start(self._answer(task_id, params))
            self._answers[task_id] = answer
            answer.add_done_callback(lambda done: self._ended(task_id, done))

    def step(self) -> Iterable[tuple[TaskId, Reply]]:
        """What was said since the last time; after an answer's end nothing more of it."""
        self._look_for_cancels()
        replies: list[tuple[TaskId, Reply]] = []
        for key, texts, last in self._outbox.take(STEP_SECONDS):
            task_id = TaskId(key)
            replies += [(task_id, self._chunk(text)) for text in texts]
            replies += [(task_id, reply) for reply in last]
            if last:
                self._answers.pop(task_id, None)
                self._cancelled_tasks.discard(task_id)
        return replies

    def _chunk(self, text: Text) -> TokenChunk:
        logprob, tokenizer = text.logprob, self._engine.tokenizer
        value, top = None, None
        if logprob is not None and tokenizer is not None:
            value, top = finite(logprob.logprob), top_logprobs(logprob, tokenizer)
        return TokenChunk(
            model=self._model,
            text=text.text,
            token_id=text.token,
            usage=None,
            logprob=value,
            top_logprobs=top,
            is_thinking=text.thinking,
        )

    def _look_for_cancels(self) -> None:
        try:
            cancels = self._cancels.collect()
        except Exception:  # the queue is closed: exo ends this process, and wants no answer more
            cancels = [CANCEL_ALL_TASKS]
        for task_id in cancels:
            if len(self._cancelled_tasks) >= CANCELS_KEPT:
                self._cancelled_tasks.clear()
            self._cancelled_tasks.add(task_id)
            for one in list(self._answers) if task_id == CANCEL_ALL_TASKS else [task_id]:
                if answer := self._answers.get(one):
                    answer.cancel()

    def _ended(self, task_id: TaskId, answer: "Future[None]") -> None:
        """An answer's coroutine has ended, or was cancelled before it began."""
        if answer.cancelled():
            self._outbox.end(task_id, CancelledResponse())
        elif error := answer.exception():
            self._fail(task_id, one_line(error))

    def _fail(self, task_id: TaskId, sentence: str) -> None:
        """End an answer with a sentence; the runner stays ready for the next."""
        _log.error("a request failed: %s", sentence)
        error = ErrorChunk(model=self._model, error_message=sentence)
        self._outbox.end(task_id, error, FinishedResponse())

    async def _answer(self, task_id: TaskId, params: TextGenerationTaskParams) -> None:
        """One answer, piece by piece, into the outbox."""
        arrived, first = time.monotonic(), 0.0
        request = await request_of(task_id, params, self._engine, self._prompts)
        async with aclosing(self._engine.answer(request)) as pieces:
            async for piece in pieces:
                now = time.monotonic()
                first = first or now
                for text in texts_of(piece):
                    self._outbox.put(task_id, text)
                if piece.finish and piece.usage:
                    rates = stats(piece.usage, first - arrived, now - first)
                    last = self._last(piece, exo_usage(piece.usage), rates)
                    self._outbox.end(task_id, last, FinishedResponse())

    def _last(self, piece: Piece, usage: Usage, stats: GenerationStats) -> Chunk:
        """The chunk that says why the answer ends, and what it took."""
        model = self._model
        if piece.tool_calls:
            calls = [
                ToolCallItem(id=call.id, name=call.name, arguments=call.arguments)
                for call in piece.tool_calls
            ]
            return ToolCallChunk(model=model, tool_calls=calls, usage=usage, stats=stats)
        finish: Literal["stop", "length"] = "length" if piece.finish == "length" else "stop"
        return TokenChunk(
            model=model, text="", token_id=0, usage=usage, finish_reason=finish, stats=stats
        )

    def serve_prefill(self, request: Any, wfile: Any) -> None:
        """exo can have one node compute a prompt for another; this engine does not."""
        raise RuntimeError("this engine computes no prompt for other nodes")

    def close(self) -> None:
        """Give the device back; once, and any thread may."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            for answer in list(self._answers.values()):
                answer.cancel()
            try:
                self.start(self._engine.close(CLOSE_SECONDS)).result(CLOSE_SECONDS + 0.5)
            except Exception as error:
                problem = str(error) or repr(error)
                _log.error("the device could not be given back in order: %s", problem)
            self._prompts.stop()


def _resident() -> int:
    """The bytes of memory that this process holds; 0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
