"""A backend's instance: on the one thread that waits for it, or on the loop."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from ...names import PACKAGE
from .. import metrics, settings
from ..cards import Model
from ..contract import (
    AnswerBackend,
    Array,
    Backend,
    ContractError,
    DeviceError,
    Layers,
    Piece,
    Request,
)
from ..text.tokenizer import Tokenizer
from .scheduler import Scheduler, Step
from .thread import HungError, WatchedThread
from .validation import makes_answers

STEP_SECONDS = 120.0  # what a step may take; a prompt of 1,000 tokens twice that
CHECK_SECONDS = 5.0  # how often a device that is down is asked whether it is back

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
        self.answers = makes_answers(backend)
        self.whole_model = self.answers or bool(cast(Any, backend).whole_model)
        self.files: tuple[str, ...] = tuple(getattr(backend, "files", ()))
        self.threaded = not self.answers or bool(getattr(backend, "blocking", False))
        self._class: Callable[[], Any] = backend
        self.instance: Any = None
        self._seconds = settings.seconds("STEP_SECONDS", STEP_SECONDS)
        self._worker = WatchedThread(PACKAGE, self._hung)
        self._batches = Scheduler(self._worker, self._compute, self._seconds)
        self.block: int | None = None
        self.context: int | None = None
        self._sizes = callable(getattr(backend, "size", None))
        self.reuses = self._sizes and callable(getattr(backend, "reuse", None))
        self._batches.together = callable(getattr(backend, "step_batch", None))
        self._turn = asyncio.Lock()  # a backend that blocks gives one answer at a time
        self._answer: _BlockingAnswer | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._up = True
        self.bytes = 0  # of the loaded layers, where the backend tells it

    async def load(
        self, layers: Layers, model: Model, folder: Path | None, tokenizer: Tokenizer
    ) -> None:
        """Make an instance and load it; one that was there is closed first. Raises DeviceError."""
        if self._worker.stuck:
            raise DeviceError("the device hangs in a step. See its driver's log, or start anew")
        await self.close()
        what: Any = layers
        if self.answers:
            what, folder = model, folder if self.files else None
        if self.threaded:
            await self._worker.submit(lambda: self._make(what, folder, tokenizer))
        else:
            self.instance = self._class()
            await self.instance.load(model, folder, tokenizer)

    def _make(self, what: Layers | Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        self.instance = self._class()
        self.instance.load(what, folder, tokenizer)
        self.bytes = self._model_size()
        metrics.MODEL_BYTES.set(self.bytes)
        self.block, self.context = (_positions(self.instance, n) for n in ("block", "context"))

    def _model_size(self) -> int:
        with suppress(Exception):  # a figure is no reason to fail
            return int(self.instance.size(None)) if self._sizes else 0
        return 0

    async def step(self, request_id: str, x: Array, phase: str) -> tuple[Any, int]:
        """What step() gives, and the bytes of the request's state, 0 where they are not told.

        Raises DeviceError where it takes too long, DroppedError where the request ended meanwhile.
        """
        try:
            with metrics.QUEUED.track_inprogress():
                return cast(tuple[Any, int], await self._batches.step(request_id, x, phase))
        except HungError as error:
            raise self._hangs() from error

    def _hangs(self) -> DeviceError:
        return DeviceError(
            f"the device has not come back from a step within {self._seconds:.0f} s. See its "
            f"driver's log; {settings.PREFIX}STEP_SECONDS allows more"
        )

    def _compute(self, steps: list[Step]) -> list[Any]:
        """On the thread: each step's output and size, or the exception that it alone ends with."""
        begun = time.perf_counter()
        if len(steps) == 1:
            outputs = [self.instance.step(steps[0].request_id, steps[0].x)]
        else:
            outputs = self.instance.step_batch([(step.request_id, step.x) for step in steps])
            if not isinstance(outputs, list) or len(outputs) != len(steps):
                raise ContractError(
                    f"step_batch() in backend.py gave {type(outputs).__name__} for {len(steps)} "
                    "steps; it gives a list with an array, or an exception, for each of them"
                )
        took = time.perf_counter() - begun
        metrics.BATCH_SIZE.observe(len(steps))
        for step in steps:
            metrics.QUEUE_SECONDS.labels(step.phase).observe(begun - step.queued)
            metrics.STEP_SECONDS.labels(step.phase).observe(took)
        return [
            output if isinstance(output, Exception) else (output, self._size(step.request_id))
            for step, output in zip(steps, outputs, strict=True)
        ]

    def _size(self, request_id: str) -> int:
        return int(self.instance.size(request_id)) if self._sizes else 0

    async def reuse(self, request_id: str, other: str, length: int) -> bool:
        """Begin a request with another's first positions; whether the device did."""
        instance = self.instance
        try:
            call = partial(instance.reuse, request_id, other, length)
            await self._worker.submit(call, self._seconds)
        except HungError as error:
            raise self._hangs() from error
        except Exception as error:  # it costs time only: the prompt is computed from its beginning
            _log.warning("reuse() in backend.py failed: %r", error)
            self.forget(request_id)
            return False
        return True

    def drop(self, request_id: str) -> None:
        """A request has ended: its steps that wait never run, and nobody waits for its next."""
        self._batches.drop(request_id)

    def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The backend's own iterator of one answer."""
        if self.threaded:
            return self._blocking_answer(request)
        return cast(AnswerBackend, self.instance).answer(request)

    async def _blocking_answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer at a time; each piece is a call of the thread's, watched as a step is."""
        async with self._turn:
            answer = self._answer = _BlockingAnswer(self.instance, request)
            seconds = self._seconds * (1 + len(request.ids) / 1000)
            try:
                while (piece := await self._worker.submit(answer.next, seconds)) is not None:
                    yield piece
                    seconds = self._seconds
            except HungError as error:
                raise self._hangs() from error
            finally:
                self._close_answer(answer)

    def _close_answer(self, answer: _BlockingAnswer) -> None:
        """Behind the call that is under way, and before anything later."""
        if self._answer is answer:
            self._answer = None
            self._worker.submit(answer.close).add_done_callback(_log_failure)

    def forget(self, request_id: str) -> None:
        """Drop a request's state, after what is queued."""
        if (instance := self.instance) is not None:
            done = self._worker.submit(lambda: instance.forget(request_id))
            done.add_done_callback(_log_failure)  # it must not end another request

    def went_well(self, well: bool) -> None:
        """Say whether the device is up; while it isn't, ask it now and then."""
        metrics.BACKEND_UP.set(int(well))
        if well and not self._up:
            _log.warning("the device answers again")
        self._up = well
        if not well and (self._recovery is None or self._recovery.done()):
            self._recovery = asyncio.ensure_future(self._recover())

    def _hung(self, hung: bool) -> None:
        if hung:
            _log.error("the device hangs in a step: its requests end, and new ones are refused")
        self.went_well(not hung)

    async def _recover(self) -> None:
        while not self._up:
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(Exception):
                if not self._worker.stuck:
                    await self.check()
                    self.went_well(True)

    async def check(self) -> str:
        """The backend's word on its device, from an instance of its own."""
        if self.threaded:
            return _line(await self._worker.submit(self._check))
        instance = self._class()
        try:
            found = await instance.check()
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                await instance.close()
            raise
        await instance.close()
        return _line(found)

    def _check(self) -> Any:
        instance = self._class()
        try:
            found = instance.check()
        except BaseException:
            with suppress(Exception):
                instance.close()
            raise
        instance.close()
        return found

    async def close(self, seconds: float = 60.0) -> None:
        """Close the instance; a device that hangs is waited for no longer than this."""
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        if self.instance is None:
            return
        instance, self.instance = self.instance, None
        metrics.MODEL_BYTES.set(0)
        self._batches.drop()
        if self.threaded:
            if self._answer is not None:
                self._close_answer(self._answer)
            closing = self._worker.submit(instance.close)
        else:
            closing = asyncio.ensure_future(instance.close())
        # Not cancelled when the time is over: a device that comes back is still closed.
        await asyncio.wait([closing], timeout=0 if self._worker.stuck else seconds)
        if not closing.done():
            _log.error("the device was not closed in time: it still works on something")
        elif not closing.cancelled() and (error := closing.exception()):
            _log.error("the backend failed to close: %s", str(error) or repr(error))

    def stop(self) -> None:
        """End the thread."""
        self._worker.stop()


def _positions(instance: Any, name: str) -> int | None:
    """A number of positions that a backend may tell after its load."""
    number = getattr(instance, name, None)
    if number is not None and (type(number) is not int or number < 1):
        raise ContractError(f"{name} in backend.py is {number!r}; it is a whole number above 0")
    return number


def _line(found: Any) -> str:
    if not isinstance(found, str):
        raise ContractError(f"check() in backend.py gives {found!r}; it gives one line of text")
    return found


def _log_failure(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("the backend failed to let go: %r", error)
