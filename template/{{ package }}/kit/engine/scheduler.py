"""Steps that wait for the device go to it together, where it takes several at once.

Without a wait for those who were just served, groups of users lock out of phase: the device would
compute one group's step while the other's user reads, and never all of them in one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..contract import Array, ContractError
from .thread import HungError, WatchedThread

WAIT_SECONDS = 0.01  # for the next steps of those who were just served, but no longer than
WAIT_SHARE = 0.05  # of what their step took


class DroppedError(RuntimeError):
    """The request ended while its step waited."""


@dataclass(eq=False)
class Step:
    """One step of one request, and who waits for what comes of it."""

    request_id: str
    x: Array
    phase: str
    queued: float
    future: "asyncio.Future[Any]"


class Scheduler:
    """The steps that wait, and the one call of the worker that is under way.

    compute: gives what each step gave, in order, on the worker's thread; an exception in its place
    fails that step alone. together: whether it takes more than one.
    """

    def __init__(
        self, worker: WatchedThread, compute: Callable[[list[Step]], list[Any]], seconds: float
    ) -> None:
        self.together = False
        self._worker, self._compute, self._seconds = worker, compute, seconds
        self._waiting: deque[Step] = deque()
        self._alone: deque[Step] = deque()  # of a batch that failed as a whole
        self._running: asyncio.Future[list[Any]] | None = None
        self._expected: set[str] = set()  # who was just served
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def step(self, request_id: str, x: Array, phase: str) -> Any:
        """What compute() gave for this step. Raises DroppedError, HungError, and what it raised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Step(request_id, x, phase, time.perf_counter(), future))
        self._expected.discard(request_id)
        self._go()
        return await future

    def drop(self, request_id: str | None = None) -> None:
        """A request has ended, or all: its waiting step never runs, and nobody waits for it."""
        for step in [*self._alone, *self._waiting]:
            if request_id in (None, step.request_id) and not step.future.done():
                step.future.set_exception(DroppedError())
        self._expected.discard(request_id or "")
        self._go()

    def allowed(self, steps: list[Step]) -> float:
        """The seconds that these may take before the device counts as hung."""
        positions: int = sum(step.x.shape[1] for step in steps)
        return self._seconds * (1 + positions / 1000)

    def _go(self) -> None:
        """Give the worker what waits, unless it is busy or others are about to come."""
        if self._running is not None or not (batch := self._next()):
            return
        left = self._until - time.perf_counter()
        if self._expected and left > 0 and not self._alone:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(left, self._waited)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expected.clear()
        for step in batch:
            (self._alone if self._alone else self._waiting).remove(step)
        begun = time.perf_counter()
        self._running = self._worker.submit(partial(self._compute, batch), self.allowed(batch))
        self._running.add_done_callback(partial(self._done, batch, begun))

    def _waited(self) -> None:
        self._timer = None
        self._expected.clear()
        self._go()

    def _next(self) -> list[Step]:
        """The steps that go next: all of one position, and one of those that have more."""
        for queue in (self._alone, self._waiting):
            for step in [step for step in queue if step.future.done()]:
                queue.remove(step)
        if self._alone:
            return [self._alone[0]]
        if not self.together:
            return [self._waiting[0]] if self._waiting else []
        batch: dict[str, Step] = {}
        blocks = 0
        for step in self._waiting:
            if step.request_id in batch or (step.x.shape[1] > 1 and blocks):
                continue
            blocks += step.x.shape[1] > 1
            batch[step.request_id] = step
        return list(batch.values())

    def _done(self, batch: list[Step], begun: float, done: "asyncio.Future[list[Any]]") -> None:
        self._running = None
        took = time.perf_counter() - begun
        error = done.exception()
        if error is None:
            for step, result in zip(batch, done.result(), strict=True):
                _tell(step, result)
        elif len(batch) > 1 and not isinstance(error, HungError | ContractError):
            self._alone.extend(batch)
        else:
            for step in batch:
                _tell(step, error)
        if self.together and error is None:
            self._expected = {step.request_id for step in batch}
            self._until = begun + took + min(WAIT_SECONDS, WAIT_SHARE * took)
        self._go()


def _tell(step: Step, result: Any) -> None:
    if step.future.done():
        return
    if isinstance(result, BaseException):
        step.future.set_exception(result)
    else:
        step.future.set_result(result)
