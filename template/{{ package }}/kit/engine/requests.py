"""The requests of an engine: one record each, and the one place that lets them in and ends them."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import metrics
from ..contract import Array, RequestError

if TYPE_CHECKING:
    from .answer_stream import AnswerStream
    from .scheduler import Scheduler

MOST = 64  # requests at once
IDLE_SECONDS = 900.0  # exo's own response timeout: nobody waits for such a request
SPARED_SECONDS = 60.0  # who was idle for less is not evicted for a newcomer
WAIT_SECONDS = 10.0  # how long a newcomer waits for room
MOST_WAITING = 4 * MOST  # newcomers that wait; each holds its prompt
_ENDED_KEPT = 16 * MOST


class Status(Enum):
    """Where a request is: in flight, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EVICTED = "evicted"


@dataclass(eq=False)
class RequestState:
    """All that is known of one request, from its first step until nothing of it is held.

    arrived, used: seconds of time.monotonic(). A step's input is (1, S) ids or (1, S, D) hidden
    states; `done` of its S rows are computed, in slices that gave `outputs`. The prompt is the
    first step's input, (S,) or (S, D): the prefix cache compares it with later ones.
    """

    id: str
    arrived: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    status: Status = Status.RUNNING
    reason: str = "it was dropped"  # why it ended
    busy: int = 0  # callers that work for it: it is not idle
    steps: int = 0
    tokens: int = 0
    positions: int = 0  # rows of all its steps that the device has computed or copied
    reused: int = 0  # rows that were copied from another request's
    width: tuple[int, ...] = ()  # (D,) where it is sent hidden states
    # The step under way.
    x: Array = field(default_factory=lambda: np.zeros((1, 0)))
    slice: Array = field(default_factory=lambda: np.zeros((1, 0)))  # of x, as the device gets it
    done: int = 0
    outputs: list[Array] = field(default_factory=list)
    queued: float = 0.0  # seconds of time.perf_counter()
    result: "asyncio.Future[Array] | None" = None
    # What the device holds of it, and what it was computed of.
    prompt: Array | None = None
    cached: int = 0  # rows of the prompt that are computed
    prompt_outputs: list[Array] = field(default_factory=list)  # [s, D] each, where layers follow
    device_bytes: int = 0
    host_bytes: int = 0
    # A whole answer of an AnswerBackend, and what a host keeps with the request.
    stream: "AnswerStream | None" = None
    host: Any = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status is Status.RUNNING

    @property
    def bytes(self) -> int:
        """What its state takes, on the device and here."""
        return self.device_bytes + self.host_bytes

    def takes(self, x: Array) -> bool:
        """Whether an input (1, S) or (1, S, D) can be its next: after the prompt, S is 1."""
        fits = x.shape[1] == 1 and x.shape[2:] == self.width and x.dtype != np.uint8
        return not self.steps or fits

    def error(self) -> RequestError:
        """For whoever still waits for it."""
        return RequestError(f"this request has ended: {self.reason}")

    def __enter__(self) -> None:
        self.busy += 1

    def __exit__(self, *_: object) -> None:
        self.busy -= 1
        self.used = time.monotonic()


class Requests:
    """The requests in flight, bounded by number, bytes and idle time; the longest unused first."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self._running: OrderedDict[str, RequestState] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()  # what who comes late is told
        self._an_end = asyncio.Event()
        self._watchers = [self._an_end]
        self._waiting = 0

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._running))

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._running

    def get(self, request_id: str) -> RequestState | None:
        """A request that is in flight."""
        return self._running.get(request_id)

    async def enter(self, request_id: str, arrived: float | None = None) -> RequestState:
        """A request's record; a new one may have to wait for room. Raises RequestError."""
        if (known := self._running.get(request_id)) is not None:
            self._running.move_to_end(request_id)
            return known
        self._refuse_ended(request_id)
        self._waiting += 1
        try:
            await self._make_room()
        finally:
            self._waiting -= 1
        self._refuse_ended(request_id)
        if request_id not in self._running:
            self._running[request_id] = RequestState(request_id, arrived or time.monotonic())
            metrics.IN_FLIGHT.set(len(self._running))
        return self._running[request_id]

    def _refuse_ended(self, request_id: str) -> None:
        if request_id in self._ended:
            raise RequestError(f"{self._ended[request_id]}. Send it again")

    async def _make_room(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            self._evict_idle(IDLE_SECONDS)
            if self._full():
                self._evict_idle(SPARED_SECONDS, most=1)
            left = until - time.monotonic()
            if not self._full():
                return
            if left <= 0 or self._waiting > MOST_WAITING:
                many = len(self._running)
                raise RequestError(f"{many} requests are in flight already. Send it again later")
            await self._wait_for_an_end(min(left, 1.0))

    def _full(self) -> bool:
        return len(self._running) >= MOST or (bool(self._running) and self._scheduler.full())

    def _evict_idle(self, seconds: float, most: int = MOST) -> None:
        old = time.monotonic() - seconds
        idle = [r.id for r in self._running.values() if not r.busy and r.used < old]
        for request_id in idle[:most]:
            self.evict(request_id, f"nothing asked for its next step for {seconds:.0f} s")

    def watch(self, event: asyncio.Event) -> None:
        """Set this event at each end of a request, from now on."""
        self._watchers.append(event)

    async def empty(self, seconds: float) -> None:
        """Wait until no request is in flight, but no longer than this."""
        until = time.monotonic() + seconds
        while self._running and (left := until - time.monotonic()) > 0:
            await self._wait_for_an_end(left)

    async def _wait_for_an_end(self, seconds: float) -> None:
        self._an_end.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._an_end.wait(), seconds)

    def finish(self, request_id: str) -> None:
        """Its answer is whole, or the host wants no more of it."""
        self._end(request_id, Status.FINISHED, "it was finished")

    def fail(self, request_id: str, reason: str, cause: metrics.Cause) -> None:
        """An error ended it; one that has not come in yet is counted and refused, once."""
        self._end(request_id, Status.FAILED, reason, cause)

    def cancel(self, request_id: str, reason: str = "its client went away") -> None:
        """Nobody waits for it any more; one that has not come in yet is counted and refused."""
        self._end(request_id, Status.CANCELLED, reason)

    def evict(self, request_id: str, reason: str) -> None:
        """The engine can't keep its state."""
        self._end(request_id, Status.EVICTED, reason)

    def _end(self, request_id: str, status: Status, reason: str, cause: str = "") -> None:
        """Every end of a request: at once, and down to the device before this returns."""
        request = self._running.pop(request_id, None)
        early = status in (Status.FAILED, Status.CANCELLED) and request_id not in self._ended
        if request is None and not early:
            return
        ended = request or RequestState(request_id)
        ended.status, ended.reason = status, reason
        metrics.REQUESTS.labels(status.value, cause).inc()
        metrics.IN_FLIGHT.set(len(self._running))
        self._ended[request_id] = str(ended.error())
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
        if request is not None:
            self._scheduler.end(request)
        for event in self._watchers:
            event.set()
