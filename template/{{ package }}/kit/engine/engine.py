"""The one engine: loads a device, steps it, answers with it, and ends its requests."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
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
    Layers,
    LoadError,
    Piece,
    Request,
    RequestError,
)
from ..text.detokenizer import Detokenizer, StopTexts
from ..text.tokenizer import Tokenizer
from .executor import Executor
from .prefix_cache import PrefixCache
from .requests import InFlight, Outcome, Requests
from .sampler import Sampler
from .steps import Steps
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

    ended: told of each request that ends. keeps: whether a prompt may take over what an earlier one
    computed, where the backend can.
    """

    def __init__(
        self,
        backend: Backend,
        ended: Callable[[str], object] = lambda _: None,
        keeps: bool = True,
    ) -> None:
        self.executor = Executor(backend)
        self.states = PrefixCache(self.executor.forget, keeps and self.executor.reuses)
        self.requests = Requests(ended, self.states.full)
        self._steps = Steps(self.executor, self.states, self.requests)
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
            begun = time.monotonic()
            try:
                await self._load(layers, source)
            except Exception as error:
                text = str(error) or repr(error)
                raise LoadError(f"could not load {layers.model}: {text}") from error
            self.layers = layers
            self._tell_loaded(layers, time.monotonic() - begun)

    def _tell_loaded(self, layers: Layers, seconds: float) -> None:
        metrics.LOAD_SECONDS.observe(seconds)
        shown = f"{layers.first}-{layers.last} of {layers.total}"
        about = {"model": layers.model, "layers": shown, "contract": str(CONTRACT)}
        metrics.LOADED.info(about | {"version": version(PROJECT)})
        size = f", {self.executor.bytes / 1e6:.0f} MB" if self.executor.bytes else ""
        _log.info("loaded %s, layers %s%s, in %.1f s", layers.model, shown, size, seconds)

    async def _load(self, layers: Layers, source: Source) -> None:
        wanted: object = layers
        if self.executor.whole_model:
            wanted = layers.model if layers.ends else None
        folder = None
        if self.executor.files and wanted is not None:  # the tokenizer is among them
            folder = await source.files(self.executor.files, layers, False)
        same = self.layers is not None and self.layers.model == layers.model
        if not same or self.tokenizer is None:
            place = await source.tokenizer()
            tokenizer = await in_thread(lambda: Tokenizer.from_folder(place))
            folder = folder or place
        else:
            tokenizer = self.tokenizer
            folder = folder or tokenizer.folder
        if wanted is not None and wanted != self._loaded:
            await self._clear("the cluster changed" if same else f"{layers.model} was loaded")
            if self.executor.whole_model:
                layers = replace(layers, first=0, last=layers.total - 1)
            await self._load_device(layers, source, folder, tokenizer)
            self._loaded = wanted
        self.tokenizer = tokenizer

    async def _clear(self, reason: str) -> None:
        """Nobody may go on with what is loaded; answers of another model get time to end."""
        if self.layers is not None and reason != "the cluster changed":
            await self.requests.empty(self._drain)
        for request_id in self.requests:
            self.requests.evict(request_id, reason)
        self.states.clear()

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
            self.executor.went_well(False)
            await self.executor.close()
            raise

    async def step(self, request_id: str, x: Array, arrived: float | None = None) -> Array:
        """One step of a StepBackend, as contract.py has it.

        The host ends the request, whatever comes of it. Raises RequestError, DeviceError,
        ContractError, and what the backend raises.
        """
        arrived = time.monotonic() if arrived is None else arrived
        ends, tokenizer = cast(Layers, self.layers).ends, cast(Tokenizer, self.tokenizer)
        request = await self.requests.enter(
            request_id, lambda outcome: self._let_go(request_id, outcome), arrived
        )
        request.width = x.shape[2:]
        with request:
            output = await self._steps.compute(request_id, x, not request.steps, ends, tokenizer)
        self._came(request, int(ends))
        return output

    def _let_go(self, request_id: str, outcome: Outcome) -> None:
        """A request has ended: what it computed rightly may serve a later one."""
        self.executor.drop(request_id)
        self.states.end(request_id, outcome in ("finished", "cancelled"))

    def _came(self, request: InFlight, tokens: int) -> None:
        """Count what a request got."""
        if not request.steps:
            self.executor.went_well(True)
        if tokens and not request.tokens:
            metrics.FIRST_TOKEN_SECONDS.observe(time.monotonic() - request.arrived)
        request.steps += 1
        request.tokens += tokens
        metrics.TOKENS.inc(tokens)

    def pick(self, output: Array, sampler: Sampler) -> int:
        """The next id of what a last step gave; every EOS id becomes the tokenizer's first."""
        if np.issubdtype(output.dtype, np.integer):
            token = int(output.reshape(-1)[-1])
        else:
            token = sampler.sample(output)
        if self.tokenizer is not None and token in self.tokenizer.eos_token_ids:
            return self.tokenizer.eos_token_id
        return token

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The whole answer, text as it comes; the last piece says why it is the last.

        Closing it cancels the request. Raises as step() does.
        """
        tokenizer = cast(Tokenizer, self.tokenizer)
        stream, stop = Detokenizer(tokenizer.decode), StopTexts(request.stop)
        pieces = self._served(request) if self.executor.answers else self._decoded(request)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    text = piece.text or stream.feed(piece.ids)
                    if piece.finish:
                        text = stop.feed(text + stream.rest())
                        text += "" if stop.found else stop.rest()
                    else:
                        text = stop.feed(text)
                    finish = "stop" if stop.found else piece.finish
                    yield replace(piece, text=text, finish=finish)
                    if finish:
                        break
        except (asyncio.CancelledError, GeneratorExit):
            self.requests.cancel(request.id)
            raise
        except Exception as error:
            self.requests.fail(request.id, str(error), cause_of(error))
            raise
        self.requests.finish(request.id)

    async def _decoded(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Prefill, decode and sampling over a StepBackend."""
        sampler = Sampler(request.sampling, request.ids)
        end = cast(Tokenizer, self.tokenizer).eos_token_id
        x = np.array([request.ids], dtype=np.int64)  # [1, S]
        for n in range(request.max_tokens):
            token = self.pick(await self.step(request.id, x), sampler)
            if token == end:
                yield Piece(finish="stop")
                return
            last = n + 1 == request.max_tokens
            yield Piece(ids=(token,), finish="length" if last else None)
            x = np.array([[token]], dtype=np.int64)

    async def _served(self, request: Request) -> AsyncGenerator[Piece, None]:
        """An AnswerBackend's pieces; a task of its own iterates it, whoever asks for the next."""
        pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        tasks: list[asyncio.Task[None]] = []
        entry = await self.requests.enter(
            request.id, lambda _: [task.cancel() for task in tasks], time.monotonic()
        )
        tasks.append(asyncio.create_task(self._pump(request, pieces)))
        try:
            while True:
                with entry:
                    piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                piece = self._up_to_the_end(piece)
                if piece.text or piece.ids:
                    self._came(entry, len(piece.ids) or 1)
                yield piece
                if piece.finish:
                    return
        finally:
            tasks[0].cancel()

    def _up_to_the_end(self, piece: Piece) -> Piece:
        """A piece without its first end token and what a server may have put behind it."""
        ends = cast(Tokenizer, self.tokenizer).eos_token_ids
        at = next((n for n, token in enumerate(piece.ids) if token in ends), None)
        return piece if at is None else replace(piece, ids=piece.ids[:at], finish="stop")

    async def _pump(self, request: Request, pieces: "asyncio.Queue[Piece | Exception]") -> None:
        try:
            async with aclosing(self.executor.answer(request)) as answer:
                async for piece in answer:
                    pieces.put_nowait(piece)
            pieces.put_nowait(Piece(finish="stop"))  # where the backend said no end
        except asyncio.CancelledError:
            pieces.put_nowait(RequestError(self.requests.why(request.id)))
            raise
        except Exception as error:
            if not isinstance(error, ValueError):
                self.executor.went_well(False)
            pieces.put_nowait(error)

    async def close(self, seconds: float = 2.0) -> None:
        """Give the device back, waiting for it no longer than this; the next load takes it anew."""
        for request_id in self.requests:
            self.requests.evict(request_id, "the engine was closed")
        await self.executor.close(seconds)
        self.executor.stop()
        self.states.clear()
        self.layers, self._loaded = None, None
