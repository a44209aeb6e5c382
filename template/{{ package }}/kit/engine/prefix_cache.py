"""What the device holds of requests: of those in flight, and of answers that have ended.

A prompt that begins as an earlier one need not compute that part again. What tells them apart is
what went in, row by row and to the bit: ids, or on a later node of a cluster the hidden states that
come to it. So every node finds out by itself, and none has to be told.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from .. import metrics, settings
from ..contract import Array

LEAST = 32  # rows that are worth taking over
MOST_KEPT = 512  # ended answers: each is looked at for every prompt


@dataclass(frozen=True)
class Found:
    """Whose state begins as a prompt does, for how many rows, and what came out for them."""

    request_id: str
    length: int
    outputs: Array | None  # (1, length, D); None where nothing goes on from here


@dataclass
class _State:
    """One request's: what went in, and what came out where that goes on to another node."""

    inputs: list[Array] = field(default_factory=list)  # [s] or [s, D] each
    outputs: list[Array] = field(default_factory=list)  # [s, D] each, of the same rows
    device: int = 0  # bytes there
    here: int = 0  # bytes of these rows

    def add(self, x: Array, output: Array | None) -> None:
        """Rows (1, s) or (1, s, D) that were computed; copied, as a device may reuse its memory."""
        self.inputs.append(x[0].copy())
        self.here += x.nbytes
        if output is not None:
            self.outputs.append(output[0].copy())
            self.here += output.nbytes

    def rows(self) -> Array:
        """All that went in, as one array."""
        return _joined(self.inputs)

    @property
    def size(self) -> int:
        """Bytes, the device's and these."""
        return self.device + self.here


def _joined(rows: list[Array]) -> Array:
    if len(rows) > 1:
        rows[:] = [np.concatenate(rows)]
    return rows[0]


class PrefixCache:
    """Bounded by bytes, all together: those of ended answers go first, the oldest of them first.

    forget: drops what the device holds of a request.
    """

    def __init__(self, forget: Callable[[str], object], keeps: bool) -> None:
        self._forget = forget
        allowed = settings.size("CACHE_BYTES")
        self._keeps = keeps and allowed != 0
        self._limit = allowed or default_limit()
        self._live: dict[str, _State] = {}
        self._kept: OrderedDict[str, _State] = OrderedDict()
        self._bytes_kept = 0

    def find(self, x: Array) -> Found | None:
        """The state that begins as x does for the most rows, if those are enough.

        One row of x is always left: what comes after the prompt is computed from it.
        """
        best, length = "", LEAST - 1
        for request_id, state in [*self._live.items(), *self._kept.items()]:
            if state.inputs:
                same = min(_alike(state.rows(), x[0], length), x.shape[1] - 1)
                if same > length:
                    best, length = request_id, same
        if not best:
            return None
        if best in self._kept:
            self._kept.move_to_end(best)
        outputs = (self._live.get(best) or self._kept[best]).outputs
        return Found(best, length, _joined(outputs)[None, :length] if outputs else None)

    def add(self, request_id: str, x: Array, output: Array | None, size: int) -> None:
        """Rows that the device has computed for a request; output: where it goes on from here."""
        state = self._live.setdefault(request_id, _State())
        state.device = size
        if self._keeps:
            state.add(x, output)
        self._fit()

    def end(self, request_id: str, keep: bool) -> None:
        """A request is over; keep: its rows may serve a later one."""
        state = self._live.pop(request_id, None)
        if state is None or not (keep and self._keeps) or len(state.rows()) < LEAST:
            self._forget(request_id)
        else:
            for other, older in list(self._kept.items()):
                if _covers(state.rows(), older.rows()):
                    self.drop(other)
            self._kept[request_id] = state
            self._bytes_kept += state.size
        self._fit()

    def drop(self, request_id: str) -> None:
        """Forget an ended answer's state, if it is kept."""
        if (state := self._kept.pop(request_id, None)) is not None:
            self._bytes_kept -= state.size
            self._forget(request_id)

    def clear(self) -> None:
        """The device is closed: it holds nothing any more."""
        self._live.clear()
        self._kept.clear()
        self._bytes_kept = 0
        self._fit()

    def full(self) -> bool:
        """Whether those in flight take all that is allowed: a newcomer has to wait."""
        return self._bytes_live() >= self._limit

    def _bytes_live(self) -> int:
        return sum(state.size for state in self._live.values())

    def _fit(self) -> None:
        """Drop what is kept until the rest fits, and show what there is."""
        live = self._bytes_live()
        while self._kept and (live + self._bytes_kept > self._limit or len(self._kept) > MOST_KEPT):
            self.drop(next(iter(self._kept)))
        metrics.HELD_BYTES.labels("in_flight").set(live)
        metrics.HELD_BYTES.labels("kept").set(self._bytes_kept)


def _alike(rows: Array, x: Array, better_than: int) -> int:
    """How many rows are the same from the first on, where that is more than so many."""
    end, at = min(len(rows), len(x)), better_than
    if end <= at or rows.shape[1:] != x.shape[1:] or not np.array_equal(rows[at], x[at]):
        return 0
    differs = rows[:end] != x[:end]
    if differs.ndim > 1:
        differs = differs.any(axis=1)
    return int(differs.argmax()) if differs.any() else end


def _covers(rows: Array, older: Array) -> bool:
    """Whether a state holds all that an older one does."""
    return _alike(rows, older, 0) == len(older)


def default_limit() -> int:
    """A quarter of the machine's memory; a GiB where that is not known."""
    with suppress(ValueError, OSError, AttributeError):
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if pages > 0:
            return pages // 4
    return 1 << 30
