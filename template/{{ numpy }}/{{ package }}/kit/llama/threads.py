"""How many threads NumPy's BLAS multiplies matrices with: chosen by measuring.

Its threads wait for each other. Where another program has one of two cores, two threads are many
times slower than one; where none has, they are faster. The number is the process's, as the BLAS has
it, so that all shards of a process compute with the same one: sums depend on it in their last bits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
from threadpoolctl import ThreadpoolController

from .. import settings
from .llama import FEW, Array, Model

DECODE, PREFILL = 1, 32  # rows of the two products that are measured
NUMBERS = {DECODE: 1 << 25, PREFILL: 1 << 22}  # of matrices in one pass: some 10 ms each
SMALL = 1 << 17  # numbers of a matrix that threads don't make faster
ROUNDS = 5
HOPELESS = 4.0  # times the best pass: such a number of threads is measured no further
ALIKE = 1.05  # fewer threads win where they take no longer than this
SLOW = 1.5  # times the best: something else has come
STEPS = 8  # decode steps that are looked at together: a stall hits one in several
PAUSE = 5.0  # seconds without a step, after which a prompt looks before it begins
FIRST_WAIT, LAST_WAIT = 5.0, 20.0  # seconds until more threads are tried again; it doubles
SLOW_WORK, MORE_WORK = 8.0, 20.0  # times what measuring took: so much work lies in between

Passes = dict[int, list[Callable[[], object]]]


class Threads:
    """Measures at load, and again when steps become slow or cores may be free again."""

    def __init__(
        self,
        limit: int,
        use: Callable[[int], None],
        fixed: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._limit, self._use, self._clock = limit, use, clock
        self._setting, self._fixed = fixed, fixed or (1 if limit == 1 else None)
        self._chosen: dict[int, int] = {}  # threads by rows
        self._pass = 0.0  # seconds of a decode pass with the chosen number
        self._recent: deque[float] = deque(maxlen=STEPS)
        self._best = float("inf")  # decode step since the last measuring
        self._measured = self._stepped = self._worked = self._cost = 0.0
        self._wait = FIRST_WAIT
        self._small = False

    def ready(self, model: Model) -> None:
        """Choose for a model that was loaded."""
        self._small = small(model)
        if not self._fixed and not self._small:
            self._measure(passes(matrices(model)))

    @contextmanager
    def step(self, model: Model, rows: int, requests: int = 1) -> Iterator[None]:
        """A step of so many rows, of so many requests: with the threads that are best now."""
        if self._fixed or small(model):
            self._use(self._fixed or 1)
            yield
            return
        decodes = rows == requests
        if self._stale(decodes, lambda: passes(matrices(model))):
            self._measure(passes(matrices(model)))
        self._use(self._chosen[DECODE if rows <= FEW else PREFILL])
        begun = self._clock()
        yield
        self._stepped = self._clock()
        self._worked += self._stepped - begun
        if rows == DECODE:  # several take longer, and that is no sign
            self._recent.append(self._stepped - begun)
            self._best = min(self._best, self._recent[-1])

    def _stale(self, decodes: bool, work: Callable[[], Passes]) -> bool:
        """Whether the choice may be wrong by now."""
        if not self._chosen:
            return True
        now, most = self._clock(), max(self._chosen.values())
        if not decodes:  # its own measuring would make the first token late, so one pass only
            if most == 1 or now - self._stepped < PAUSE:
                return False
            return self._seconds(work()[DECODE], self._chosen[DECODE]) > SLOW * self._pass
        if most < self._limit and now - self._measured > self._wait:
            return self._worked > MORE_WORK * self._cost
        if self._chosen[DECODE] == 1 or len(self._recent) < STEPS:
            return False
        slow = sum(self._recent) > SLOW * STEPS * self._best
        return slow and self._worked > SLOW_WORK * self._cost

    def _measure(self, work: Passes) -> None:
        before, begun = dict(self._chosen), self._clock()
        for rows, calls in work.items():
            self._chosen[rows] = self._fastest(calls)
        self._pass = self._seconds(work[DECODE], self._chosen[DECODE])
        changed = before != self._chosen
        self._wait = FIRST_WAIT if changed else min(2 * self._wait, LAST_WAIT)
        self._recent.clear()
        self._best = float("inf")
        self._measured = self._stepped = self._clock()
        self._worked, self._cost = 0.0, self._measured - begun

    def _fastest(self, calls: list[Callable[[], object]]) -> int:
        """The fewest threads that take as long as the fastest number, all rounds together."""
        spent = dict.fromkeys(candidates(self._limit), 0.0)
        self._seconds(calls, 1)  # weights may come from the disk
        for _ in range(ROUNDS):
            best = float("inf")
            for number in list(spent):
                seconds = self._seconds(calls, number, HOPELESS * best)
                spent[number] += seconds
                if seconds > HOPELESS * best:
                    del spent[number]
                best = min(best, seconds)
        least = min(spent.values())
        return next(number for number, seconds in spent.items() if seconds <= ALIKE * least)

    def _seconds(
        self, calls: list[Callable[[], object]], number: int, most: float = float("inf")
    ) -> float:
        """What one pass takes, or what it had taken when it was given up."""
        self._use(number)
        begun = self._clock()
        for call in calls:
            call()
            if self._clock() - begun > most:
                break
        return self._clock() - begun

    def __str__(self) -> str:
        """What is used, and why."""
        if self._fixed:
            why = " (a setting)" if self._setting else ""
            return f"{self._fixed} of {self._limit} threads{why}"
        if self._small:
            return f"1 of {self._limit} threads (a small model)"
        if not self._chosen:
            self._measure(passes(_usual()))
        decode, prefill = self._chosen[DECODE], self._chosen[PREFILL]
        shown = f"{decode}" if decode == prefill else f"{decode} (prompts {prefill})"
        return f"{shown} of {self._limit} threads (measured)"


def small(model: Model) -> bool:
    """Whether threads would only wait for each other; the same for every shard of a model."""
    return model.config.hidden_size * model.config.intermediate_size < SMALL


def matrices(model: Model) -> Iterator[Array]:
    """The matrices of the model's layers, in the order of the computation."""
    return (w for layer in model.layers for w in layer.values() if w.ndim == 2)


def passes(some: Iterable[Array]) -> Passes:
    """Products like those of a token and of a prompt, with the first of these matrices."""
    made: Passes = {DECODE: [], PREFILL: []}
    left = dict(NUMBERS)
    for w in some:  # [out, in]
        for rows, calls in made.items():
            if left[rows] > 0:
                calls.append(partial(np.matmul, np.ones((rows, w.shape[1]), np.float32), w.T))
                left[rows] -= w.size
        if max(left.values()) <= 0:
            break
    return made


def candidates(limit: int) -> list[int]:
    """Numbers of threads to try: powers of two, and all cores, and all but one."""
    powers = {1 << n for n in range(limit.bit_length()) if 1 << n <= limit}
    return sorted(powers | {limit, max(1, limit - 1)})


def _usual() -> Iterator[Array]:
    """Matrices for doctor, which loads no model."""
    return (np.ones((1024, 1024), np.float32) for _ in range(8))


@cache
def of_process() -> Threads:
    """The process's threads, at most as many as its BLAS has at first. Raises SettingError."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def use(number: int) -> None:
        for library in libraries:
            library.set_num_threads(number)

    limit = max((library.get_num_threads() or 1 for library in libraries), default=1)
    return Threads(limit, use, settings.whole("THREADS"))
