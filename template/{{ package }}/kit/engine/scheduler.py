"""Which steps go to the device next: in slices, behind what another request computed, and together.

Without a wait for those who were just served, groups of users lock out of phase: the device would
compute one group's step while the other's user reads, and never all of them in one.
"""

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import Any

import numpy as np

from .. import metrics
from ..contract import Array, ContractError, DeviceError, RequestError
from .executor import Executor
from .prefix_cache import Match, PrefixCache
from .requests import RequestState, Status

WAIT_SECONDS = 0.01  # for the next steps of those who were just served, but no longer than
WAIT_SHARE = 0.05  # of what their step took

_log = logging.getLogger(__name__)


class Scheduler:
    """The steps that wait, and the one batch that the executor computes."""

    def __init__(self, executor: Executor, cache: PrefixCache) -> None:
        self._executor, self._cache = executor, cache
        self._waiting: deque[RequestState] = deque()
        self._alone: deque[RequestState] = deque()  # of a batch that failed as a whole
        self._batch: list[RequestState] = []  # that the device computes
        self._expected: set[str] = set()  # who was just served
        self._until = 0.0  # when they are waited for no longer, seconds of time.perf_counter()
        self._timer: asyncio.TimerHandle | None = None

    def full(self) -> bool:
        """Whether those in flight take all the memory that they may: a newcomer has to wait."""
        return self._cache.full()

    async def step(self, request: RequestState, x: Array) -> Array:
        """What a step gives: the outputs of all its rows, or of the last layers' last slice.

        Raises RequestError, DeviceError, ContractError, and what the backend raises.
        """
        if request.result is not None and not request.result.done():
            raise RequestError("this request is in a step already")
        if not request.steps:
            self._refuse_too_long(x)
        self._executor.vocabulary.refuse(x, is_prompt=not request.steps)
        request.x, request.done, request.outputs = x, 0, []
        request.result = asyncio.get_running_loop().create_future()
        with metrics.QUEUED.track_inprogress():
            if not request.steps:
                await self._begin(request, x)
            if not request.result.done():  # it may have ended meanwhile
                request.queued = time.perf_counter()
                self._waiting.append(request)
                self._expected.discard(request.id)
                self._go()
            return await request.result

    def _refuse_too_long(self, x: Array) -> None:
        context = self._executor.context
        if context is not None and x.shape[1] > context:
            raise RequestError(
                f"the prompt is too long: with it there are {x.shape[1]} tokens, and the model's "
                f"context ends at {context}"
            )

    async def _begin(self, request: RequestState, x: Array) -> None:
        """Take over the rows of a prompt that another request has computed, if there are enough."""
        self._forget(self._cache.drop(request.id))  # an ended answer may have had the same id
        request.width = x.shape[2:]
        match = self._cache.begin(request, x)
        if match is None or not await self._reuse(request, match):
            return
        request.done = request.positions = request.reused = match.length
        if match.outputs is not None:
            request.outputs.append(match.outputs)
        self._forget(self._cache.add(request, match.length, match.outputs, 0))
        metrics.REUSE_HITS.inc()
        metrics.REUSED_TOKENS.inc(match.length)

    async def _reuse(self, request: RequestState, match: Match) -> bool:
        try:
            await self._executor.reuse(request.id, match.request_id, match.length)
        except DeviceError as error:
            self._fail(request, error)
        except NotImplementedError as error:
            _log.info("prompts are computed whole: %s", error)
            self._forget([*self._cache.off(), request.id])
        except Exception as error:  # it costs time only: the prompt is computed from its beginning
            _log.warning("reuse() in backend.py failed: %r", error)
            self._executor.forget(request.id)
        else:
            return request.running
        return False

    def end(self, request: RequestState) -> None:
        """A request has ended: nobody waits for it, its step never runs, its state may serve."""
        if request.stream is not None:
            request.stream.end(request.error())
            return
        _settle(request, request.error())
        self._expected.discard(request.id)
        keep = request.status in (Status.FINISHED, Status.CANCELLED)
        self._forget(self._cache.end(request, keep))
        self._go()

    def clear(self) -> None:
        """The device is closed: it holds nothing any more."""
        self._cache.clear()

    def _forget(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._executor.forget(request_id)

    def _go(self) -> None:
        """Give the executor what waits, unless it is busy or others are about to come."""
        if self._batch or not (batch := self._schedule()):
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
        for request in batch:
            (self._alone if self._alone else self._waiting).remove(request)
            end = request.done + (self._executor.block or request.x.shape[1])
            # The same slices on every node: others would change the last bits of its sums.
            request.slice = request.x[:, request.done : end]
        try:
            job = self._executor.execute(batch)
        except Exception as error:
            for request in batch:
                self._fail(request, error)
            return
        self._batch = batch
        job.result.add_done_callback(partial(self._finished, time.perf_counter()))

    def _waited(self) -> None:
        self._timer = None
        self._expected.clear()
        self._go()

    def _schedule(self) -> list[RequestState]:
        """The slices that go next: all of one position, and one of those that have more."""
        for queue in (self._alone, self._waiting):
            for request in [request for request in queue if _settled(request)] if queue else ():
                queue.remove(request)
        if self._alone:
            return [self._alone[0]]
        if not self._executor.batches:
            return [self._waiting[0]] if self._waiting else []
        batch: list[RequestState] = []
        long = False
        for request in self._waiting:
            if request.x.shape[1] > request.done + 1:
                if long:
                    continue
                long = True
            batch.append(request)
        return batch

    def _finished(self, started: float, done: "asyncio.Future[list[Any]]") -> None:
        """The executor is free again. Whatever happens here, nobody may wait for ever."""
        batch, self._batch = self._batch, []
        try:
            self._take(batch, done, started)
        except Exception as error:
            _log.exception("a step's result could not be handed on")
            for request in batch:
                _settle(request, error)
        except asyncio.CancelledError:
            for request in batch:
                _settle(request, RequestError("its step was cancelled. Send the request again"))
        self._go()

    def _take(
        self, batch: list[RequestState], done: "asyncio.Future[list[Any]]", started: float
    ) -> None:
        """What the executor gave, to whom it belongs."""
        if (error := done.exception()) is not None:
            if len(batch) > 1 and not isinstance(error, DeviceError | ContractError):
                self._alone.extend(batch)
                return
            for request in batch:
                self._fail(request, error)
            return
        for request, result in zip(batch, done.result(), strict=True):
            if isinstance(result, Exception):
                self._fail(request, result)
            elif not _settled(request):  # else it ended while it was computed
                self._advance(request, *result)
        if self._executor.batches:
            self._expected = {request.id for request in batch if request not in self._waiting}
            now = time.perf_counter()
            self._until = now + min(WAIT_SECONDS, WAIT_SHARE * (now - started))

    def _advance(self, request: RequestState, output: Array, size: int) -> None:
        """A slice is computed: the next one waits, or the step is done."""
        rows = request.slice.shape[1]
        request.done += rows
        request.positions += rows
        ends = self._executor.ends
        self._forget(self._cache.add(request, rows, None if ends else output, size))
        request.outputs.append(output)
        if request.done < request.x.shape[1]:
            request.queued = time.perf_counter()
            self._waiting.append(request)
            return
        if not request.steps:
            self._executor.report(None)
        outputs, request.outputs = request.outputs, []
        assert request.result is not None
        one = ends or len(outputs) == 1
        request.result.set_result(outputs[-1] if one else np.concatenate(outputs, axis=1))

    def _fail(self, request: RequestState, error: BaseException) -> None:
        self._executor.report(error)
        _settle(request, error)


def _settled(request: RequestState) -> bool:
    """Whether nobody waits for its step any more."""
    return request.result is None or request.result.done()


def _settle(request: RequestState, error: BaseException) -> None:
    """End a step that somebody waits for."""
    if request.result is not None and not request.result.done():
        request.result.set_exception(error)
        request.result.exception()  # its caller may have gone: nothing is logged for it
