"""Which requests are in flight, and every way for one to end."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .. import metrics
from ..contract import Array, RequestError

MOST = 64  # requests at once
IDLE_SECONDS = 900.0  # exo's own response timeout: nobody waits for such a request
SPARED_SECONDS = 60.0  # who was idle for less is not evicted for a newcomer
WAIT_SECONDS = 10.0  # how long a newcomer waits for room
MOST_WAITING = 4 * MOST  # newcomers that wait; each holds its prompt
_ENDED_KEPT = 16 * MOST

Outcome = Literal["finished", "failed", "cancelled", "evicted"]


@dataclass
class InFlight:
    """A request that has not ended; let_go is told how it did, and drops its state."""

    let_go: Callable[["Outcome"], object]
    arrived: float
    used: float = field(default_factory=time.monotonic)
    steps: int = 0
    tokens: int = 0
    busy: int = 0
    width: tuple[int, ...] = ()  # of the hidden states that it is sent; ids have none

    def takes(self, x: Array) -> bool:
        """Whether an input (1, S) or (1, S, D) can be its next: after the prompt, S is 1."""
        fits = x.shape[1] == 1 and x.shape[2:] == self.width and x.dtype != np.uint8
        return not self.steps or fits

    def __enter__(self) -> None:
        """Something works for it: it is not idle."""
        self.busy += 1

    def __exit__(self, *_: object) -> None:
        self.busy -= 1
        self.used = time.monotonic()


class Requests:
    """The requests in flight, bounded by number, bytes and idle time; the longest unused first.

    full: whether their states take all the memory that they may.
    """

    def __init__(
        self,
        ended: Callable[[str], object] = lambda _: None,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tell, self._heavy = ended, full
        self._flying: OrderedDict[str, InFlight] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()  # and why
        self._room = asyncio.Event()
        self._waiting = 0

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._flying))

    def __len__(self) -> int:
        return len(self._flying)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._flying

    def get(self, request_id: str) -> InFlight | None:
        """A request that is in flight."""
        return self._flying.get(request_id)

    async def enter(
        self, request_id: str, let_go: Callable[["Outcome"], object], arrived: float
    ) -> InFlight:
        """A request's record; a new one may have to wait for room. Raises RequestError."""
        self._refuse_ended(request_id)
        if request_id not in self._flying:
            self._waiting += 1
            try:
                await self._make_room()
            finally:
                self._waiting -= 1
            self._refuse_ended(request_id)
            self._flying.setdefault(request_id, InFlight(let_go, arrived))
            metrics.IN_FLIGHT.set(len(self._flying))
        self._flying.move_to_end(request_id)
        return self._flying[request_id]

    def why(self, request_id: str) -> str:
        """Why a request has ended."""
        return f"this request has ended: {self._ended.get(request_id, 'it was dropped')}"

    async def empty(self, seconds: float) -> None:
        """Wait until no request is in flight, but no longer than this."""
        until = time.monotonic() + seconds
        while self._flying and (left := until - time.monotonic()) > 0:
            await self._an_end(left)

    async def _an_end(self, seconds: float) -> None:
        """Wait until a request ends, but no longer than this."""
        self._room.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), seconds)

    def _refuse_ended(self, request_id: str) -> None:
        if request_id in self._ended:
            raise RequestError(f"{self.why(request_id)}. Send it again")

    async def _make_room(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            self._evict(IDLE_SECONDS)
            if self._full():
                self._evict(SPARED_SECONDS, most=1)
            left = until - time.monotonic()
            if not self._full():
                return
            if left <= 0 or self._waiting > MOST_WAITING:
                many = len(self._flying)
                raise RequestError(f"{many} requests are in flight already. Send it again later")
            await self._an_end(min(left, 1.0))

    def _full(self) -> bool:
        return len(self._flying) >= MOST or (bool(self._flying) and self._heavy())

    def _evict(self, idle: float, most: int = MOST) -> None:
        old = time.monotonic() - idle
        found = [i for i, r in self._flying.items() if not r.busy and r.used < old]
        for request_id in found[:most]:
            self.evict(request_id, f"nothing asked for its next step for {idle:.0f} s")

    def finish(self, request_id: str) -> None:
        """Its answer is whole, or the host wants no more of it."""
        self._end(request_id, "finished", "it was finished")

    def fail(self, request_id: str, reason: str, cause: metrics.Cause) -> None:
        """An error ended it."""
        self._end(request_id, "failed", reason, cause, early=True)

    def cancel(self, request_id: str) -> None:
        """Who asked is gone."""
        self._end(request_id, "cancelled", "its client went away", early=True)

    def evict(self, request_id: str, reason: str) -> None:
        """The engine can't keep its state."""
        self._end(request_id, "evicted", reason)

    def _end(
        self, request_id: str, outcome: "Outcome", reason: str, cause: str = "", early: bool = False
    ) -> None:
        """early: one that has not come in yet is counted and refused too, once."""
        request = self._flying.pop(request_id, None)
        if request is not None or (early and request_id not in self._ended):
            self._remember(request_id, outcome, reason, cause)
        if request is not None:
            request.let_go(outcome)
            self._tell(request_id)

    def _remember(self, request_id: str, outcome: str, reason: str, cause: str) -> None:
        """Count the end of a request, and refuse its id for a while."""
        metrics.REQUESTS.labels(outcome, cause).inc()
        metrics.IN_FLIGHT.set(len(self._flying))
        self._ended[request_id] = reason
        while len(self._ended) > _ENDED_KEPT:
            self._ended.popitem(last=False)
        self._room.set()
