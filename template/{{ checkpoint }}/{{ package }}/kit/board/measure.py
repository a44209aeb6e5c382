"""One case: is the operation what the reference is, and how long do both take?"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from ..llama.llama import REFERENCE, Array, Operations
from ..llama.table import NAMES, Own
from .cases import Case
from .inputs import Inputs, draw

SEEDS = (0, 1, 0, 2)  # weights that come again must not be mistaken for others
REPEATS, REPEAT_SECONDS = 25, 0.04  # one that is not always right may be right once
TIMED, TIMED_SECONDS = 5, 0.02
USES = {  # what a reference's larger operation calls
    "attention": ("linear", "rms_norm", "rotate", "attend"),
    "mlp": ("linear",),
    "logits": ("linear", "rms_norm"),
    "layer": ("linear", "rms_norm", "rotate", "attend", "attention", "mlp"),
    "model": NAMES,
}
State = str  # right, wrong, raised, missing; of the parent: crashed, hung, skipped


@dataclass(frozen=True)
class Verdict:
    """What became of a case. error: the largest difference of a row over its largest number."""

    state: State
    why: str = ""
    error: float = 0.0
    seconds: float = 0.0
    reference_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For the parent."""
        return asdict(self)


class Wrong(Exception):
    """The operation gives something else; the text says what, and in which call."""

    def __init__(self, why: str, error: float = float("inf")) -> None:
        super().__init__(why)
        self.error = error


def judge(case: Case, own: Own, timed: bool = True) -> Verdict:
    """Compare a case's operation with the reference's, and time both.

    A larger operation of the author's is given the reference's for the smaller ones; the
    reference's is given the author's.
    """
    table = REFERENCE if case.operation in own.table else own.operations
    try:
        error = max(_errors(case, own.operations, table, own.tolerance))
    except Wrong as wrong:
        return Verdict("wrong", str(wrong), wrong.error)
    if not timed:
        return Verdict("right", "", error)
    inputs = draw(case, 0)
    taken = seconds(
        lambda: inputs.call(own.operations, table), lambda: inputs.call(REFERENCE, REFERENCE)
    )
    return Verdict("right", "", error, *taken)


def _errors(case: Case, op: Operations, table: Operations, tolerance: float) -> Iterator[float]:
    """The errors of many calls. Raises Wrong."""
    first: list[tuple[Array, Array]] = []  # an earlier call's output, and a copy of it then
    for n, seed in enumerate(SEEDS):
        inputs, when = draw(case, seed), "" if n == 0 else "with other weights of the same shapes"
        for step in range(case.steps + 1):
            if step:
                inputs, when = inputs.following(seed), f"in step {step + 1} of a request"
            output, error = _compared(inputs, op, table, tolerance, when)
            first = first or [(output, output.copy())]
            yield error
        del inputs, output  # the next arrays may take their places
    inputs, until = draw(case, 3), time.perf_counter() + REPEAT_SECONDS
    expected = _expected(inputs)
    for n in range(REPEATS):
        yield _compared(inputs, op, table, tolerance, f"in call {n + 1} of the same", expected)[1]
        if time.perf_counter() > until:
            break
    other = draw(case, 4)
    for name, array in inputs.x.items():
        array[:] = other.x[name]
    yield _compared(inputs, op, table, tolerance, "with other numbers in the same memory")[1]
    for output, copy in first:
        if not np.array_equal(output, copy, equal_nan=True):
            raise Wrong("a later call changes what an earlier one gave")


def _expected(inputs: Inputs) -> tuple[Array, Inputs]:
    """What the reference gives, and the caches behind it."""
    after = inputs.copied()
    return after.call(REFERENCE, REFERENCE), after


def _compared(
    inputs: Inputs,
    op: Operations,
    table: Operations,
    tolerance: float,
    when: str,
    expected: tuple[Array, Inputs] | None = None,
) -> tuple[Array, float]:
    """Call it once: its output, and the error. Raises Wrong."""
    right, after = expected or _expected(inputs)
    before = {name: array.copy() for name, array in inputs.x.items()}
    output = inputs.call(op, table)
    error = compare(output, right, tolerance, "", when)
    for name, array in before.items():
        if not np.array_equal(inputs.x[name], array, equal_nan=True):
            raise Wrong(_at(f"it changes its argument {name}", when))
    if inputs.case.operation in ("attend", "attention", "layer", "model"):
        for own, reference in zip(inputs.parts, after.parts, strict=True):
            end = own.end
            values = own.values[:, :, :end]
            own_keys, right_keys = (
                np.moveaxis(part.keys[..., :end], -1, -2) for part in (own, reference)
            )
            compare(own_keys, right_keys, tolerance, "the cached keys: ", when)
            compare(values, reference.values[:, :, :end], tolerance, "the cached values: ", when)
    return output, error


def compare(result: Any, expected: Array, tolerance: float, what: str, when: str) -> float:
    """The error of an output. Raises Wrong where it is above the tolerance."""
    if not isinstance(result, np.ndarray):
        raise Wrong(_at(f"{what}it gives a {type(result).__name__}, not a NumPy array", when))
    if result.shape != expected.shape or result.dtype != expected.dtype:
        kinds = f"{_kind(result)}, and not {_kind(expected)}"
        raise Wrong(_at(f"{what}it gives {kinds}", when))
    with np.errstate(all="ignore"):
        difference = np.abs(result - expected)
        difference[(result == expected) | (np.isnan(result) & np.isnan(expected))] = 0
        sizes = np.abs(expected)
        size = np.nanmax(sizes, axis=-1, initial=1e-30, keepdims=True)
        # A row of one number, or of few, may be near zero by chance.
        size = np.maximum(size, np.nanmax(sizes, initial=0) / 8)
        relative = difference / size  # [..., n] / [..., 1]
    wrong = ~(relative <= tolerance)
    if not wrong.any():
        return float(relative.max(initial=0.0))
    place = tuple(int(n) for n in np.argwhere(wrong)[0])
    error = float(relative.max()) if np.isfinite(relative).all() else float("nan")
    raise Wrong(
        _at(
            f"{what}at {list(place)} it gives {result[place]:.6g}, the reference "
            f"{expected[place]:.6g}; {int(wrong.sum())} of {wrong.size} numbers are off",
            when,
        ),
        error,
    )


def _kind(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _at(why: str, when: str) -> str:
    return f"{when}, {why}" if when else why


def seconds(*calls: Callable[[], object]) -> list[float]:
    """The median of each call's times; they take turns, so that what disturbs one disturbs all."""
    taken: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + len(calls) * TIMED_SECONDS
    while len(taken[0]) < TIMED or time.perf_counter() < until:
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        if time.perf_counter() > until + 10 * TIMED_SECONDS:
            break
    return [median(times) for times in taken]


def work(case: Case) -> tuple[float, str]:
    """What a case has to do: floating-point operations of many rows, else bytes that are read."""
    c, rows, name = case, case.rows + case.requests - 1, case.operation
    queries, pairs, end = c.heads * c.head_dim, c.kv_heads * c.head_dim, c.past + c.rows
    seen = min(end, c.window + c.rows) if c.window else end
    projections, mlp = c.hidden * (2 * queries + 2 * pairs), 3 * c.hidden * c.inner
    matrices = {  # numbers of the weights
        "linear": c.hidden * c.inner,
        "attend": 0,
        "attention": projections,
        "mlp": mlp,
        "layer": projections + mlp,
        "logits": c.hidden * c.vocab,
        "model": 2 * (projections + mlp) + c.hidden * c.vocab,
    }.get(name)
    if matrices is None:
        row = queries if name == "rotate" or c.qk_norm else c.hidden
        return 8.0 * rows * row, "GB/s"
    attends = {"attend": 1, "attention": 1, "layer": 1, "model": 2}.get(name, 0)
    if rows < 8:
        return 4.0 * (matrices + attends * seen * 2 * pairs), "GB/s"
    return 2.0 * rows * (matrices + attends * seen * 2 * queries), "GFLOP/s"
