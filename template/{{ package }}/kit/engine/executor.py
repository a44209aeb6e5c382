"""A backend's instance: on the thread that waits for it, or on the loop; whether it is up."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from ...names import PACKAGE
from .. import metrics, settings
from ..cards import Model
from ..contract import Backend, ContractError, DeviceError, Layers, Piece, Request
from ..ids import Vocabulary
from ..text.tokenizer import Tokenizer
from .answer_stream import AnswerStream
from .requests import RequestState
from .thread import Job, WatchedThread, in_thread
from .validation import makes_answers, positions, step_output, step_outputs, text_line

STEP_SECONDS = 120.0  # what a step may take; a prompt of 1,000 tokens twice that
CHECK_SECONDS = 5.0  # how often a device that is down is checked

_PREFILL, _DECODE = [
    (metrics.QUEUE_SECONDS.labels(phase), metrics.STEP_SECONDS.labels(phase))
    for phase in ("prefill", "decode")
]
_log = logging.getLogger(__name__)


class _BlockingAnswer:
    """One answer of a backend that blocks; every method is called on its thread."""

    def __init__(self, backend: Any, request: Request) -> None:
        self._backend, self._request = backend, request
        self._pieces: Iterator[Piece] | None = None

    def next(self) -> Piece | None:
        """The next piece, None behind the last."""
        if self._pieces is None:
            self._pieces = self._backend.answer(self._request)
        return next(self._pieces, None)

    def close(self) -> None:
        """Its end, or its cancel."""
        if self._pieces is not None:
            cast(Any, self._pieces).close()


class Executor:
    """One backend: made at its first load, on the thread that does everything else with it."""

    def __init__(self, backend: Backend) -> None:
        kind: Any = backend
        self._class = kind
        self.answers = makes_answers(backend)
        self.threaded = not self.answers or bool(getattr(kind, "blocking", False))
        self.whole_model = self.answers or bool(kind.whole_model)
        self.files: tuple[str, ...] = tuple(getattr(kind, "files", ()))
        self.batches = callable(getattr(kind, "step_batch", None))
        self._sizes = callable(getattr(kind, "size", None))
        self.reuses = self._sizes and callable(getattr(kind, "reuse", None))
        self.instance: Any = None
        self.block: int | None = None
        self.context: int | None = None
        self.vocabulary = Vocabulary()
        self.bytes = 0  # of the loaded layers, where the backend tells it
        self.ends, self._end_id = True, 0  # whether it has the last layers; the model's last EOS
        self._seconds = settings.seconds("STEP_SECONDS", STEP_SECONDS)
        self._thread = WatchedThread(
            PACKAGE,
            f"the device has not come back from a step within {self._seconds:.0f} s. See its "
            f"driver's log; {settings.PREFIX}STEP_SECONDS allows more",
        )
        self._turn = asyncio.Lock()  # a backend that blocks gives one answer at a time
        self._answer: _BlockingAnswer | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._up: bool | None = None  # not known before the first success or failure

    async def load(
        self, layers: Layers, model: Model, folder: Path | None, tokenizer: Tokenizer
    ) -> None:
        """Make an instance and load it; one that was there is closed first. Raises DeviceError."""
        if self._thread.hung is not None:
            raise DeviceError("the device hangs in a step. See its driver's log, or start anew")
        await self.close()
        self.ends, self._end_id = layers.ends, max(tokenizer.eos_token_ids)
        what: Any = layers
        if self.answers:
            what, folder = model, folder if self.files else None
        if self.threaded:
            await self._thread.submit(lambda: self._make(what, folder, tokenizer))
            if not self.answers:
                self.vocabulary = await in_thread(lambda: Vocabulary.of(layers, folder, tokenizer))
        else:
            self.instance = self._class()
            await self.instance.load(what, folder, tokenizer)

    def _make(self, what: Layers | Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        self.instance = self._class()
        self.instance.load(what, folder, tokenizer)
        if self._sizes:
            with suppress(Exception):  # a figure is no reason to fail
                self.bytes = int(self.instance.size(None))
        metrics.MODEL_BYTES.set(self.bytes)
        self.block, self.context = (positions(self.instance, n) for n in ("block", "context"))

    def execute(self, batch: list[RequestState]) -> Job[list[Any]]:
        """Compute the slices of different requests together.

        The job gives for each its output and the bytes of the request's state, or the exception
        that it alone ends with.
        """
        length = sum(request.slice.shape[1] for request in batch)
        return self._thread.submit(
            partial(self._compute, batch), self._seconds * (1 + length / 1000)
        )

    def _compute(self, batch: list[RequestState]) -> list[Any]:
        """On the thread."""
        started = time.perf_counter()
        if len(batch) == 1:
            outputs = [self.instance.step(batch[0].id, batch[0].slice)]
        else:
            steps = [(request.id, request.slice) for request in batch]
            outputs = step_outputs(self.instance.step_batch(steps), len(steps))
        took = time.perf_counter() - started
        metrics.BATCH_SIZE.observe(len(batch))
        for request in batch:
            queue, step = _DECODE if request.steps else _PREFILL
            queue.observe(started - request.queued)
            step.observe(took)
        return [self._result(r.id, output) for r, output in zip(batch, outputs, strict=True)]

    def _result(self, request_id: str, output: Any) -> Any:
        if isinstance(output, Exception):
            return output
        try:
            array = step_output(output, self.ends, self._end_id)
            return array, int(self.instance.size(request_id)) if self._sizes else 0
        except Exception as error:
            return error

    def reuse(self, request_id: str, other: str, length: int) -> Job[None]:
        """Begin a request with the first positions of another's state."""
        instance = self.instance
        return self._thread.submit(lambda: instance.reuse(request_id, other, length), self._seconds)

    def forget(self, request_id: str) -> None:
        """Drop a request's state, behind what is queued and before anything later."""
        if (instance := self.instance) is not None:
            job = self._thread.submit(lambda: instance.forget(request_id))
            job.result.add_done_callback(_log_failure)  # it must not end another request

    def answer(self, request: Request) -> AnswerStream:
        """Begin a whole answer."""
        try:
            give = self._blocking_answer if self.threaded else self.instance.answer
            stream = AnswerStream(give(request))
        except Exception as error:
            self.report(error)
            raise
        stream.task.add_done_callback(self._answered)
        return stream

    async def _blocking_answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer at a time; each piece is a job of the thread, watched as a step is."""
        async with self._turn:
            answer = self._answer = _BlockingAnswer(self.instance, request)
            seconds = self._seconds * (1 + len(request.ids) / 1000)
            try:
                while (piece := await self._thread.submit(answer.next, seconds)) is not None:
                    yield piece
                    seconds = self._seconds
            finally:
                self._close_answer(answer)

    def _close_answer(self, answer: _BlockingAnswer) -> None:
        """Behind the job that runs, and before anything later."""
        if self._answer is answer:
            self._answer = None
            self._thread.submit(answer.close).result.add_done_callback(_log_failure)

    def _answered(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self.report(task.exception())

    def report(self, error: BaseException | None) -> None:
        """What became of the device's work: an error of the request's says nothing of it."""
        if error is None:
            self._set_up()
        elif not isinstance(error, ValueError | ContractError):
            self.set_down()

    def _set_up(self) -> None:
        if not self._up:
            if self._up is False:
                _log.warning("the device answers again")
            self._up = True
            metrics.BACKEND_UP.set(1)

    def set_down(self) -> None:
        """The device failed; it is watched until it is back."""
        self._up = False
        metrics.BACKEND_UP.set(0)
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.ensure_future(self._recover())

    async def _recover(self) -> None:
        """Wait for a job that hangs, or ask the device now and then, until it is back."""
        while not self._up:
            if (hung := self._thread.hung) is not None:
                _log.error("the device hangs in a step: its requests end, new ones are refused")
                await hung.returned
                self._set_up()
                return
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(Exception):
                await self.check()
                self._set_up()

    async def check(self) -> str:
        """The backend's word on its device, from an instance of its own."""
        if self.threaded:
            return text_line(await self._thread.submit(self._check))
        instance = self._class()
        try:
            line = await instance.check()
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                await instance.close()
            raise
        await instance.close()
        return text_line(line)

    def _check(self) -> Any:
        instance = self._class()
        try:
            line = instance.check()
        except BaseException:
            with suppress(Exception):
                instance.close()
            raise
        instance.close()
        return line

    async def close(self, seconds: float = 60.0) -> None:
        """Close the instance; a device that hangs is waited for no longer than this."""
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        if self.instance is None:
            return
        instance, self.instance = self.instance, None
        metrics.MODEL_BYTES.set(0)
        closing: asyncio.Future[Any]
        if self.threaded:
            if self._answer is not None:
                self._close_answer(self._answer)
            closing = self._thread.submit(instance.close).result
        else:
            closing = asyncio.ensure_future(instance.close())
        # Not cancelled when the time is over: a device that comes back is still closed.
        await asyncio.wait([closing], timeout=seconds if self._thread.hung is None else 0)
        if not closing.done():
            _log.error("the device was not closed in time: it still works on something")
        elif not closing.cancelled() and (error := closing.exception()):
            _log.error("the backend failed to close: %s", str(error) or repr(error))

    def stop(self) -> None:
        """End the thread."""
        self._thread.stop()


def _log_failure(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("the backend failed to let go: %r", error)
