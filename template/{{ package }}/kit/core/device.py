"""A backend's instance: a StepBackend on its one thread, an AnswerBackend on the loop."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ..names import PACKAGE
from . import metrics, settings
from .contract import (
    AnswerBackend,
    Array,
    Backend,
    ContractError,
    Layers,
    Piece,
    Request,
    makes_answers,
)
from .models import Model
from .tokenizer import Tokenizer
from .worker import HungError, Worker

STEP_SECONDS = 120.0  # what a step may take; a prompt of 1,000 tokens twice that
CHECK_SECONDS = 5.0  # how often a device that is down is asked whether it is back

_log = logging.getLogger(__name__)


class DeviceError(RuntimeError):
    """The device doesn't answer."""


class Device:
    """One backend: made at its first load, on the thread that does everything else with it."""

    def __init__(self, backend: Backend) -> None:
        self.answers = makes_answers(backend)
        self.whole_model = self.answers or bool(cast(Any, backend).whole_model)
        self.files: tuple[str, ...] = () if self.answers else cast(Any, backend).files
        self._class: Callable[[], Any] = backend
        self.instance: Any = None
        self._seconds = settings.seconds("STEP_SECONDS", STEP_SECONDS)
        self._worker = Worker(PACKAGE, self._hung)
        self._recovery: asyncio.Task[None] | None = None
        self._up = True
        self.bytes = 0  # of the loaded layers, where the backend tells it
        self._held: dict[str, int] = {}  # bytes of each request; the worker's

    async def load(
        self, layers: Layers, model: Model, folder: Path | None, tokenizer: Tokenizer
    ) -> None:
        """Make an instance and load it; one that was there is closed first. Raises DeviceError."""
        if self._worker.stuck:
            raise DeviceError("the device hangs in a step. See its driver's log, or start anew")
        await self.close()
        if self.answers:
            self.instance = self._class()
            await self.instance.load(model, tokenizer)
        else:
            await self._worker.submit(lambda: self._make(layers, folder, tokenizer))

    def _make(self, layers: Layers, folder: Path | None, tokenizer: Tokenizer) -> None:
        self.instance = self._class()
        self.instance.load(layers, folder, tokenizer)
        self.bytes = self._size(None)
        metrics.MODEL_BYTES.set(self.bytes)

    def _size(self, request_id: str | None) -> int:
        """What a request's state takes, or the model; 0 where the backend doesn't say."""
        with suppress(Exception):  # a figure is no reason to fail
            return int(self.instance.size(request_id))
        return 0

    def _hold(self, request_id: str) -> None:
        if size := self._size(request_id):
            self._held[request_id] = size
            metrics.HELD_BYTES.set(sum(self._held.values()))

    async def step(self, request_id: str, x: Array, phase: str) -> Any:
        """What step() gives. Raises DeviceError where it takes too long."""
        seconds = self._seconds * (1 + x.shape[1] / 1000)
        queued = time.perf_counter()

        def timed() -> Any:
            begun = time.perf_counter()
            output = self.instance.step(request_id, x)
            metrics.QUEUE_SECONDS.labels(phase).observe(begun - queued)
            metrics.STEP_SECONDS.labels(phase).observe(time.perf_counter() - begun)
            self._hold(request_id)
            return output

        try:
            with metrics.QUEUED.track_inprogress():
                return await self._worker.submit(timed, seconds)
        except HungError as error:
            raise DeviceError(
                f"the device has not come back from a step within {seconds:.0f} s. See its "
                f"driver's log; {settings.PREFIX}STEP_SECONDS allows more"
            ) from error

    def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """The backend's own iterator of one answer."""
        return cast(AnswerBackend, self.instance).answer(request)

    def forget(self, request_id: str) -> None:
        """Drop a request's state, after what is queued."""
        if (instance := self.instance) is not None:
            done = self._worker.submit(lambda: self._forget(instance, request_id))
            done.add_done_callback(_log_failure)  # it must not end another request

    def _forget(self, instance: Any, request_id: str) -> None:
        self._held.pop(request_id, None)
        metrics.HELD_BYTES.set(sum(self._held.values()))
        instance.forget(request_id)

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
        if not self.answers:
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
        if self.answers:
            closing = asyncio.ensure_future(instance.close())
        else:
            closing = self._worker.submit(lambda: self._close(instance))
        # Not cancelled when the time is over: a device that comes back is still closed.
        await asyncio.wait([closing], timeout=0 if self._worker.stuck else seconds)
        if not closing.done():
            _log.error("the device was not closed in time: it still works on something")
        elif not closing.cancelled() and (error := closing.exception()):
            _log.error("the backend failed to close: %s", str(error) or repr(error))

    def _close(self, instance: Any) -> None:
        self._held.clear()
        metrics.HELD_BYTES.set(0)
        instance.close()

    def stop(self) -> None:
        """End the thread."""
        self._worker.stop()


def _line(found: Any) -> str:
    if not isinstance(found, str):
        raise ContractError(f"check() in backend.py gives {found!r}; it gives one line of text")
    return found


def _log_failure(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("the backend failed to let go: %r", error)
