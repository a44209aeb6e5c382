"""How many threads NumPy's BLAS multiplies matrices with: chosen by measuring.

Its threads wait for each other. Where another program has one of two cores, two threads are many
times slower than one; where none has, they are faster. So the number is measured at the load, again
when steps have become slow, and now and then while it is less than all. A measuring takes less time
than a burst of another program, so a second one has to agree, or a third decides. The number is the
process's, as the BLAS has it: sums depend on it in their last bits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
from threadpoolctl import ThreadpoolController

from .. import settings
from .llama import FEW, Array, Model

DECODE, PREFILL = 1, 32  # rows of the two products that are measured
NUMBERS = {DECODE: 1 << 25, PREFILL: 1 << 22}  # of matrices in one pass: some 10 ms each
SMALL = 1 << 17  # numbers of a matrix that threads don't make faster
ROUNDS = 4
MEASURINGS = 3  # of which most count, where two in a row don't agree
HOPELESS = 4.0  # times the best pass: such a number of threads is measured no further
ALIKE = 1.05  # fewer threads win where they take no longer than this
SLOW = 1.5  # times the best steps: something else has come
STEPS = 8  # decode steps that are looked at together: a stall hits one in several
AGAIN = 20.0  # seconds until more threads are tried again
WORK = 20.0  # times what measuring took: so much work lies in between


class Threads:
    """The number for one token and the one for a prompt, of at most `limit`.

    use: sets the BLAS's number. fixed: a setting's, which is not measured. clock: seconds.
    """

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
        self._results: list[dict[int, int]] = []  # of the last measurings
        self._recent: deque[float] = deque(maxlen=STEPS)
        self._best = float("inf")  # of STEPS decode steps since the last measuring
        self._measured = self._worked = self._cost = 0.0

    def ready(self, model: Model) -> None:
        """Choose for a model that was loaded."""
        if not self._fixed and not small(model):
            self._measure(matrices(model))

    @contextmanager
    def step(self, model: Model, rows: int, requests: int = 1) -> Iterator[None]:
        """A step of so many rows, of so many requests: with the threads that are best now."""
        if self._fixed or small(model):
            self._use(self._fixed or 1)
            yield
            return
        if not self._chosen or (rows == requests and self._stale()):
            self._measure(matrices(model))
        self._use(self._chosen[DECODE if rows <= FEW else PREFILL])
        begun = self._clock()
        yield
        took = self._clock() - begun
        self._worked += took
        if rows == DECODE:  # several take longer, and that is no sign
            self._recent.append(took)

    def _stale(self) -> bool:
        """Whether a choice is not sure, steps have become slow, or more threads may be faster."""
        if self._worked < WORK * self._cost:
            return False
        if not self._is_sure():
            return True
        if min(self._chosen.values()) < self._limit:
            return self._clock() - self._measured > AGAIN
        if len(self._recent) < STEPS:
            return False
        total = sum(self._recent)
        self._best = min(self._best, total)
        return total > SLOW * self._best

    def _is_sure(self) -> bool:
        """Whether two measurings in a row agreed, or so many were made."""
        return len(self._results) == MEASURINGS or self._results[-2:] == 2 * self._results[-1:]

    def _measure(self, some: Iterator[Array]) -> None:
        begun = self._clock()
        if self._results and self._is_sure():
            self._results = [dict(self._chosen)]  # it may be so no longer
        self._results.append({rows: self._fastest(calls) for rows, calls in passes(some).items()})
        for rows in NUMBERS:
            numbers = [result[rows] for result in reversed(self._results)]
            self._chosen[rows] = max(numbers, key=numbers.count)  # of as many, the newest
        self._recent.clear()
        self._best, self._worked = float("inf"), 0.0
        self._measured = self._clock()
        self._cost = self._measured - begun

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
        """What is used, and why; for doctor, which loads no model."""
        if self._fixed:
            return f"{self._fixed} of {self._limit} threads" + " (a setting)" * bool(self._setting)
        if not self._chosen:
            self._measure(np.ones((1024, 1024), np.float32) for _ in range(8))
        decode, prefill = self._chosen[DECODE], self._chosen[PREFILL]
        text = f"{decode}" if decode == prefill else f"{decode} (prompts {prefill})"
        return f"{text} of {self._limit} threads (measured)"


def small(model: Model) -> bool:
    """Whether threads would only wait for each other; the same for every shard of a model."""
    return model.config.hidden_size * model.config.intermediate_size < SMALL


def matrices(model: Model) -> Iterator[Array]:
    """The matrices of the model's layers, in the order of the computation."""
    return (w for layer in model.layers for w in layer.values() if w.ndim == 2)


def passes(some: Iterator[Array]) -> dict[int, list[Callable[[], object]]]:
    """Products like those of a token and of a prompt, with the first of these matrices."""
    made: dict[int, list[Callable[[], object]]] = {DECODE: [], PREFILL: []}
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


@cache
def of_process() -> Threads:
    """The process's threads, at most as many as its BLAS has at first. Raises SettingError."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def use(number: int) -> None:
        for library in libraries:
            library.set_num_threads(number)

    limit = max((library.get_num_threads() or 1 for library in libraries), default=1)
    return Threads(limit, use, settings.whole("THREADS"))
