"""Prefix caching: a prompt that begins as an earlier one takes over what that one has computed.

What tells prompts apart is what went in, row by row and to the bit: ids, or on a later node of a
cluster the hidden states that come to it. So every node finds out by itself, and none has to be
told. A match has whole blocks, and only rows that came as a prompt: who sends prompts can learn
from no counter and no time what another's answer was. A chat's next prompt has the answer in it,
computes it once more, and from then on these rows are a prompt's too.
"""

import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .. import metrics, settings
from ..contract import Array
from .requests import RequestState

BLOCK = 32  # rows: a match has a multiple of them
MOST_KEPT = 512  # ended requests: each is looked at for every prompt

_IN_FLIGHT, _KEPT = (metrics.HELD_BYTES.labels(of) for of in ("in_flight", "kept"))


@dataclass(frozen=True)
class Match:
    """Whose prompt begins as another does, for how many rows, and what came out for them."""

    request_id: str
    length: int
    outputs: Array | None  # (1, length, D); None where nothing goes on from here


class PrefixCache:
    """What the device holds of requests: of those in flight, and of some that have ended.

    Bounded by bytes, all together: those of ended ones go first, the longest unused first. It
    decides alone: what the device shall forget, it gives back.
    """

    def __init__(self, reuses: bool) -> None:
        allowed = settings.size("CACHE_BYTES")
        self._able = self._reuses = reuses and allowed != 0
        self._limit = allowed or default_limit()
        self._running: dict[str, RequestState] = {}
        self._states: OrderedDict[str, RequestState] = OrderedDict()
        self._running_bytes = self._kept_bytes = 0

    def begin(self, request: RequestState, x: Array) -> Match | None:
        """A request comes with its prompt (1, S) or (1, S, D): the longest match, if there is one.

        One row of x is always left: what comes after the prompt is computed from it.
        """
        match = self._longest(x) if self._reuses else None
        self._running[request.id] = request
        if self._reuses:
            request.prompt = x[0].copy()  # the host may use its memory anew
            request.host_bytes = request.prompt.nbytes
            self._running_bytes += request.host_bytes
        return match

    def _longest(self, x: Array) -> Match | None:
        best, length = None, 0
        for request in [*self._running.values(), *self._states.values()]:
            if (same := _same_rows(request, x[0, :-1], length)) > length:
                best, length = request, same
        if best is None:
            return None
        if best.id in self._states:
            self._states.move_to_end(best.id)
        outputs = _joined(best.prompt_outputs)[None, :length] if best.prompt_outputs else None
        return Match(best.id, length, outputs)

    def add(self, request: RequestState, rows: int, output: Array | None, size: int) -> list[str]:
        """The device has computed rows of a request, of its prompt as long as it has some.

        output: (1, rows, D), where it goes on to other layers. size: the bytes of the request's
        state on the device. Gives the ids whose states have to go.
        """
        before = request.bytes
        request.device_bytes = size
        if request.prompt is not None and request.cached < len(request.prompt):
            request.cached += rows
            if output is not None:
                request.prompt_outputs.append(output[0].copy())  # a device uses its memory anew
                request.host_bytes += output.nbytes
        self._running_bytes += request.bytes - before
        return self._fit()

    def end(self, request: RequestState, keep: bool) -> list[str]:
        """A request is over; keep: its prompt may serve a later one. Gives the ids that go."""
        if self._running.pop(request.id, None) is None:
            return [request.id]
        self._running_bytes -= request.bytes
        keep = keep and self._reuses
        if not keep or request.prompt is None or request.cached < BLOCK:
            return [request.id, *self._fit()]
        prompt = request.prompt[: request.cached]
        shorter = [k for k, other in self._states.items() if _covers(prompt, other)]
        gone = [name for other in shorter for name in self.drop(other)]
        self._states[request.id] = request
        self._kept_bytes += request.bytes
        return gone + self._fit()

    def drop(self, request_id: str) -> list[str]:
        """Let an ended request's state go, if it is kept."""
        if (request := self._states.pop(request_id, None)) is None:
            return []
        self._kept_bytes -= request.bytes
        return [request_id]

    def off(self) -> list[str]:
        """The loaded model's states can't be taken over: none is kept. Gives the ids that go."""
        self._reuses = False
        return [name for request_id in [*self._states] for name in self.drop(request_id)]

    def clear(self) -> None:
        """The device is closed: it holds nothing any more."""
        self._reuses = self._able
        self._running.clear()
        self._states.clear()
        self._running_bytes = self._kept_bytes = 0
        self._fit()

    def full(self) -> bool:
        """Whether those in flight take all that is allowed: a newcomer has to wait."""
        return self._running_bytes >= self._limit

    def _fit(self) -> list[str]:
        """Drop what is kept until the rest fits, and show what there is."""
        gone: list[str] = []
        while self._states and (
            self._running_bytes + self._kept_bytes > self._limit or len(self._states) > MOST_KEPT
        ):
            gone += self.drop(next(iter(self._states)))
        _IN_FLIGHT.set(self._running_bytes)
        _KEPT.set(self._kept_bytes)
        return gone


def _joined(rows: list[Array]) -> Array:
    if len(rows) > 1:
        rows[:] = [np.concatenate(rows)]
    return rows[0]


def _same_rows(request: RequestState, x: Array, better_than: int) -> int:
    """How many rows a request's prompt and x begin with alike, in whole blocks, if more than so."""
    if request.prompt is None or request.prompt.shape[1:] != x.shape[1:]:
        return 0
    end = min(request.cached, len(x)) // BLOCK * BLOCK
    rows, x = request.prompt[:end], x[:end]
    if end <= better_than or not np.array_equal(rows[better_than], x[better_than]):
        return 0
    differs = (rows != x).reshape(end, -1).any(axis=1)
    return int(differs.argmax()) // BLOCK * BLOCK if differs.any() else end


def _covers(prompt: Array, other: RequestState) -> bool:
    """Whether a prompt holds all whole blocks of another's."""
    assert other.prompt is not None
    end = other.cached // BLOCK * BLOCK
    rows = other.prompt[:end]
    return rows.shape[1:] == prompt.shape[1:] and np.array_equal(rows, prompt[:end])


def default_limit() -> int:
    """A quarter of the machine's memory in bytes; a GiB where that is not known."""
    with suppress(ValueError, OSError, AttributeError):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if pages > 0:
            return pages // 4
    return 1 << 30
