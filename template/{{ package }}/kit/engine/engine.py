"""The one engine: loads a device, steps it, answers with it."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from ...names import PROJECT
from .. import metrics, settings
from ..cards import Model
from ..contract import (
    CONTRACT,
    Array,
    Backend,
    Finish,
    Layers,
    LoadError,
    Logprob,
    Piece,
    Request,
)
from ..text.tokenizer import Tokenizer
from .executor import Executor
from .output import Output
from .prefix_cache import PrefixCache
from .requests import Requests, RequestState
from .sampler import Sampler, logprob
from .scheduler import Scheduler
from .support import Support
from .thread import in_thread

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0  # how long another model waits for the answers in flight


def cause_of(error: BaseException) -> metrics.Cause:
    """Whose fault an error is, for the metrics."""
    if isinstance(error, LoadError):
        return "model"
    return "request" if isinstance(error, ValueError) else "device"


class Source(Protocol):
    """Where a host has a model's files."""

    model: Model

    async def tokenizer(self) -> Path:
        """The folder with the tokenizer's files."""

    async def files(self, patterns: tuple[str, ...], layers: Layers, everything: bool) -> Path:
        """The folder with the files that these layers need; everything: and all others."""


class Engine:
    """One backend, and everything that is the same for every device and every host.

    reuses: whether a prompt may take over what an earlier one computed, where the backend can.
    """

    def __init__(self, backend: Backend, reuses: bool = True) -> None:
        self.executor = Executor(backend)
        self._support = Support(getattr(backend, "unsupported", None), self.executor.answers)
        cache = PrefixCache(reuses and self.executor.reuses)
        self._scheduler = Scheduler(self.executor, cache)
        self.requests = Requests(self._scheduler)
        self.layers: Layers | None = None
        self.tokenizer: Tokenizer | None = None
        self._loaded: object = None  # a whole model stays when only the split has changed
        self._loading = asyncio.Lock()
        self._drain = settings.seconds("DRAIN_SECONDS", DRAIN_SECONDS)

    async def load(self, layers: Layers, source: Source) -> None:
        """Make layers ready: idempotent, and one load at a time. Raises LoadError."""
        if self.layers != layers:
            # Shielded: a caller that goes away must not leave half a load behind.
            await asyncio.shield(asyncio.ensure_future(self._load_once(layers, source)))

    async def _load_once(self, layers: Layers, source: Source) -> None:
        async with self._loading:
            if self.layers == layers:
                return
            started = time.monotonic()
            try:
                await self._load(layers, source)
            except Exception as error:
                text = str(error) or repr(error)
                raise LoadError(f"could not load {layers.model}: {text}") from error
            self.layers = layers
            self._log_loaded(layers, time.monotonic() - started)

    def _log_loaded(self, layers: Layers, seconds: float) -> None:
        metrics.LOAD_SECONDS.observe(seconds)
        span = f"{layers.first}-{layers.last} of {layers.total}"
        about = {"model": layers.model, "layers": span, "contract": str(CONTRACT)}
        metrics.LOADED.info(about | {"version": version(PROJECT)})
        size = f", {self.executor.bytes / 1e6:.0f} MB" if self.executor.bytes else ""
        _log.info("loaded %s, layers %s%s, in %.1f s", layers.model, span, size, seconds)

    async def _load(self, layers: Layers, source: Source) -> None:
        target: object = layers
        if self.executor.whole_model:
            target = layers.model if layers.ends else None
        folder = None
        if self.executor.files and target is not None:  # the tokenizer is among them
            folder = await source.files(self.executor.files, layers, False)
        same = self.layers is not None and self.layers.model == layers.model
        if not same or self.tokenizer is None:
            place = await source.tokenizer()
            tokenizer = await in_thread(lambda: Tokenizer.from_folder(place))
            folder = folder or place
        else:
            tokenizer = self.tokenizer
            folder = folder or tokenizer.folder
        if target is not None and target != self._loaded:
            await self._clear("the cluster changed" if same else f"{layers.model} was loaded")
            if self.executor.whole_model:
                layers = replace(layers, first=0, last=layers.total - 1)
            await self._load_device(layers, source, folder, tokenizer)
            self._loaded = target
        self.tokenizer = tokenizer

    async def _clear(self, reason: str) -> None:
        """Nobody may go on with what is loaded; answers of another model get time to end."""
        if self.layers is not None and reason != "the cluster changed":
            await self.requests.empty(self._drain)
        for request_id in self.requests:
            self.requests.evict(request_id, reason)
        self._scheduler.clear()

    async def _load_device(
        self, layers: Layers, source: Source, folder: Path, tokenizer: Tokenizer
    ) -> None:
        """Load; where a file is missing that the host left out, have it fetched and load again."""
        try:
            try:
                await self.executor.load(layers, source.model, folder, tokenizer)
            except FileNotFoundError:
                if not self.executor.files:
                    raise
                folder = await source.files(self.executor.files, layers, True)
                await self.executor.load(layers, source.model, folder, tokenizer)
        except Exception:
            # What failed before this left the loaded model, and its requests, as they were.
            self.layers, self._loaded = None, None
            self.executor.set_down()
            await self.executor.close()
            raise

    async def step(self, request_id: str, x: Array, arrived: float | None = None) -> Array:
        """One step of a StepBackend, as contract.py has it.

        arrived: seconds of time.monotonic(). The host ends the request, whatever comes of it; where
        the caller is cancelled, it ends here. Raises RequestError, DeviceError, ContractError, and
        what the backend raises.
        """
        request = await self.requests.enter(request_id, arrived)
        try:
            with request:
                output = await self._scheduler.step(request, x)
        except asyncio.CancelledError:
            if request.running:
                self.requests.cancel(request_id, "its step was cancelled")
            raise
        _count(request, int(self.executor.ends))
        return output

    def is_full(self, request_id: str) -> bool:
        """Whether a request has come to the end of the model's context: no step of it would fit."""
        request, context = self.requests.get(request_id), self.executor.context
        return request is not None and context is not None and request.positions >= context

    def pick(self, output: Array, sampler: Sampler | None) -> int:
        """The next id of what a last step gave; every EOS id becomes the tokenizer's first.

        sampler: of the request, which logits need, and ids of a device that samples don't.
        """
        if sampler is None or output.dtype.kind in "iu":
            token = int(output.reshape(-1)[-1])
        else:
            token = sampler.sample(output)
        if self.tokenizer is not None and token in self.tokenizer.eos_token_ids:
            return self.tokenizer.eos_token_id
        return token

    async def answer(self, request: Request, text: bool = True) -> AsyncGenerator[Piece, None]:
        """The whole answer as it comes; the last piece says why it is the last, and has the usage.

        text: whether the host reads it; without, a piece that has ids has no text. Closing it
        cancels the request. Raises as step() does.
        """
        state: RequestState | None = None
        try:
            state = await self.requests.enter(request.id)
            self._support.check(request, self._model)
            output = Output(request, cast(Tokenizer, self.tokenizer), text)
            answers = self.executor.answers
            async with aclosing(
                self._stream(request, state) if answers else self._decode(request)
            ) as pieces:
                async for one in pieces:
                    for piece in output.feed(one, state.reused):
                        yield piece
                    if output.finished:
                        break
        except (asyncio.CancelledError, GeneratorExit):
            if state is None or state.running:
                self.requests.cancel(request.id)
            raise
        except Exception as error:
            if state is None or state.running:
                self.requests.fail(request.id, str(error), cause_of(error))
            raise
        if state.running:
            self.requests.finish(request.id)

    @property
    def _model(self) -> str:
        return self.layers.model if self.layers is not None else ""

    async def _decode(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Prefill, decode and sampling over a StepBackend."""
        sampler = Sampler(request.sampling, request.ids)
        end = cast(Tokenizer, self.tokenizer).eos_token_id
        x = np.array([request.ids], dtype=np.int64)  # [1, S]
        for n in range(request.max_tokens):
            logits = await self.step(request.id, x)
            if not n and logits.dtype.kind in "iu":
                self._support.check_sampled(request, self._model)
            token = self.pick(logits, sampler)
            if token == end:
                yield Piece(finish="stop")
                return
            last = n + 1 == request.max_tokens or self.is_full(request.id)
            finish: Finish | None = "length" if last else None
            yield Piece(ids=(token,), finish=finish, logprobs=_logprobs(request, logits, token))
            x = np.array([[token]], dtype=np.int64)

    async def _stream(self, request: Request, state: RequestState) -> AsyncGenerator[Piece, None]:
        """An AnswerBackend's pieces, whoever takes the next."""
        state.stream = self.executor.answer(request)
        while True:
            with state:
                piece = await state.stream.next()
            if piece.text or piece.ids:
                _count(state, len(piece.ids) or 1)
            yield piece

    async def close(self, seconds: float = 2.0) -> None:
        """Give the device back, waiting for it no longer than this; the next load takes it anew."""
        for request_id in self.requests:
            self.requests.evict(request_id, "the engine was closed")
        await self.executor.close(seconds)
        self.executor.stop()
        self._scheduler.clear()
        self.layers, self._loaded = None, None


def _logprobs(request: Request, logits: Array, token: int) -> tuple[Logprob, ...]:
    """The token's, where the request wants them, and the device gives logits."""
    most = request.sampling.logprobs
    if most is None or np.issubdtype(logits.dtype, np.integer):
        return ()
    return (logprob(logits, token, most),)


def _count(request: RequestState, tokens: int) -> None:
    """Count what a step gave a request."""
    request.steps += 1
    if tokens and not request.tokens:
        metrics.FIRST_TOKEN_SECONDS.observe(time.monotonic() - request.arrived)
    request.tokens += tokens
    metrics.TOKENS.inc(tokens)
