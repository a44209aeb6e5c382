"""From logits to the next token id, in vLLM's meaning and order.

The order of vllm/v1/sample/sampler.py (0.22): logprobs are those of the raw logits; then penalties
for repetition, frequency and presence; a temperature below 1e-5 takes the largest logit; else
temperature, min-p, top-k, top-p, and one draw.

A vocabulary of 150,000 is not sorted, and few passes go over all of it: a token is drawn by sums
of columns, and whether it is of the nucleus is asked of the drawn one alone (weights.py). exp() of
all is most of what is left. Requests are sampled one after the other: a row stays in a core's
cache, and eight in one array took a tenth to a fifth longer each.
"""

import math
import secrets
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..contract import Logprob, Sampling
from .weights import Columns, Tops, Values, Weights

Floats = NDArray[np.floating]

GREEDY = 1e-5  # a temperature below it is none
_LEAST, _MOST = 1e-20, 1e30  # a sum of exp() within is far from float32's ends
_FEW = 4096  # that are sorted more quickly than drawn in vain
_FAR = 50.0  # so is the exp() of a largest value within
_ROWS = 64
_DRAWS = 16  # in vain, and what is left is looked at alone


class _Buffer(threading.local):
    """A thread's array for the values of one token: a new one costs as much as a pass over it."""

    def __init__(self) -> None:
        self._values = np.empty(0, dtype=np.float32)

    def of(self, size: int) -> Values:
        """It, (size,)."""
        if self._values.size != size:
            self._values = np.empty(size, dtype=np.float32)
        return self._values


_BUFFER = _Buffer()


class Sampler:
    """Chooses the tokens of one answer, as its request's Sampling has it.

    prompt: the ids before the answer, which the repetition penalty counts too. The numbers are of a
    Philox stream of its own, whose key is the seed: who answers beside it, and where, changes
    nothing.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        self._sampling = sampling
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self._bits = np.random.Philox(key=seed % (1 << 64))
        self._greedy = sampling.temperature < GREEDY
        self._by = np.float32(1.0 if self._greedy else 1 / sampling.temperature)
        penalties = sampling.presence_penalty or sampling.frequency_penalty
        penalized = penalties or sampling.repetition_penalty != 1.0
        self._penalties = _Penalties(sampling, prompt) if penalized else None

    def sample(self, logits: Floats) -> int:
        """The next id, from the logits (..., V) of the last position, of any float dtype.

        Raises ValueError where the device gave NaN.
        """
        last, sampling = _last(logits), self._sampling
        if self._greedy:
            last = last if self._penalties is None else self._scaled(last)
            token = int(np.argmax(last))  # of NaN and numbers, NaN
            _refuse_nan(last[token])
        elif sampling.min_p > 0 or 0 < sampling.top_k < last.size:
            token = self._draw_of_likeliest(last)
        else:
            token = self._draw(last)
        if self._penalties is not None:
            self._penalties.add(token)
        return token

    def _scaled(self, logits: Floats) -> Values:
        """The logits less the penalties, over the temperature: in the thread's buffer."""
        values = _BUFFER.of(logits.size)
        np.multiply(logits, self._by, out=values, casting="unsafe")
        if self._penalties is not None:
            self._penalties.apply(logits, self._by, values)
        return values

    def _draw(self, logits: Floats) -> int:
        """One id of all by its probability, (V,) -> id."""
        weights = _weights(self._scaled(logits), np.float32(0))
        if not _LEAST < weights.total() < _MOST:
            values = self._scaled(logits)
            largest = values.max()  # of NaN and numbers, NaN
            _refuse_nan(largest)
            if np.isinf(largest):
                return int(np.argmax(values))
            weights = _weights(values, largest)
        return self._choose(weights)

    def _draw_of_likeliest(self, logits: Floats) -> int:
        """One id of those that min-p and top-k leave; of equal ones at the end of top-k, all."""
        sampling, values = self._sampling, self._scaled(logits)
        top_k = sampling.top_k if 0 < sampling.top_k < values.size else 0
        tops = _tops(values, top_k)
        largest = tops.tops.max()
        _refuse_nan(largest)
        if np.isinf(largest):
            return int(np.argmax(values))
        floor = _largest(tops.tops, top_k) if top_k else np.float32(-np.inf)
        if sampling.min_p > 0:
            floor = max(floor, largest + np.float32(math.log(min(sampling.min_p, 1.0))))
        columns = tops.columns(floor)
        if not top_k and columns.size > tops.tops.size // 8:
            by = largest if abs(largest) > _FAR else np.float32(0)
            return self._choose(_weights(values, by), np.exp(floor - by))
        left = tops.within(columns)
        if 0 < top_k < left.size:
            floor = max(floor, _largest(left, top_k))
        weights = np.exp(left - largest) * (left >= floor)
        return tops.id_within(columns, self._choose(Weights(weights)))

    def _choose(self, weights: Weights, least: np.float32 | None = None) -> int:
        """A place by its weight, of those with the least weight, within the nucleus of top-p."""
        top_p, outside, total = self._sampling.top_p, np.float32(0), weights.total()
        if least is not None:
            outside = np.nextafter(least, np.float32(0))
            total -= weights.at_most(outside) if top_p < 1 else 0
        elif top_p >= 1:
            return weights.place(self._share())
        return self._within(weights, top_p * total if top_p < 1 else math.inf, outside)

    def _within(self, weights: Weights, mass: float, outside: np.float32) -> int:
        """A place by its weight, of the heaviest that reach this mass (Holtzman et al. 2020).

        Rejection, as FlashInfer's sampling has it: what is drawn of all, and is within, is drawn of
        those within. What is no heavier than one that was not within isn't either, nor is what is
        no heavier than `outside`.
        """
        for _ in range(_DRAWS if weights.values.size > _FEW else 0):
            place = weights.place(self._share())
            weight = weights.values[place]
            if weight > outside:
                if math.isinf(mass) or weights.is_within(weight, mass):
                    return place
                outside = weight
        left = np.flatnonzero(weights.values > outside)
        if left.size > _FEW:
            return int(left[self._within(Weights(weights.values[left]), mass, outside)])
        few = weights.values[left]
        few[few < _least(few, mass)] = 0
        return int(left[Weights(few).place(self._share())])

    def _share(self) -> float:
        """The next number of the stream, in [0, 1)."""
        return float((int(self._bits.random_raw()) >> 11) * 2.0**-53)


def logprob(logits: Floats, token: int, most: int) -> Logprob:
    """The log-probability of a token, and of the likeliest, at most `most`, of raw logits."""
    last = raw = np.asarray(_last(logits), dtype=np.float32)
    most = min(most, last.size)
    tops = _tops(last, most)
    largest = tops.tops.max()
    _refuse_nan(largest)
    values, by = _BUFFER.of(last.size), np.float32(0)
    if abs(largest) > _FAR:
        by, last = largest, np.subtract(last, largest, out=values)
    total = float(by) + math.log(Columns(np.exp(last, out=values)).total())
    columns = tops.columns(_largest(tops.tops, most))
    left = tops.within(columns)
    few = np.flatnonzero(left >= _largest(left, most))
    likeliest = sorted((-float(left[n]), tops.id_within(columns, int(n))) for n in few)[:most]
    top = tuple((i, -value - total) for value, i in likeliest)
    return Logprob(token, float(raw[token]) - total, top)


class _Penalties:
    """The ids that have come, and how often in the answer.

    Repetition: Keskar et al. 2019 (CTRL), of prompt and answer; presence and frequency: as OpenAI's
    API has them, of the answer.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self._sampling = sampling
        come = sorted(set(prompt)) if sampling.repetition_penalty != 1.0 else []
        self._largest = come[-1] if come else 0
        self._answer = set[int]()
        self._places = {token: place for place, token in enumerate(come)}
        self._ids = np.array(come + [0] * 64, dtype=np.int64)
        self._less = np.zeros(len(self._ids), dtype=np.float32)

    def add(self, token: int) -> None:
        """The answer has one more token."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._less = np.concatenate([self._less, np.zeros_like(self._less)])
        self._ids[place] = token
        self._less[place] += self._sampling.frequency_penalty
        if token not in self._answer:
            self._answer.add(token)
            self._less[place] += self._sampling.presence_penalty

    def apply(self, logits: Floats, by: np.float32, values: Values) -> None:
        """Set the values of the ids that have come: their logits less the penalties, times by."""
        ids, less = self._ids[: len(self._places)], self._less[: len(self._places)]
        if self._largest >= len(values):  # a prompt may have what a head lacks
            ids, less = ids[ids < len(values)], less[ids < len(values)]
        x = np.asarray(logits[ids], dtype=np.float32)
        if (factor := np.float32(self._sampling.repetition_penalty)) != 1:
            x = np.where(x > 0, x / factor, x * factor)
        values[ids] = (x - less) * by


def _last(logits: Floats) -> Floats:
    last: Floats = logits.reshape(-1, logits.shape[-1])[-1]  # [..., V] -> [V]
    return last


def _refuse_nan(value: np.floating) -> None:
    if np.isnan(value):
        raise ValueError("the logits hold NaN: the device or the model's weights are at fault")


def _weights(values: Values, largest: np.float32) -> Weights:
    """exp(values - largest), in the same array."""
    if largest:
        values -= largest
    with np.errstate(over="ignore"):  # the sum says so
        return Weights(np.exp(values, out=values))


def _tops(values: Values, count: int) -> Tops:
    """The largest of columns: so many that those of the `count` largest have few more."""
    return Tops(values, max(1, min(_ROWS, values.size // (16 * max(count, 1)))))


def _largest(values: Values, count: int) -> np.float32:
    """The count-th largest; none reaches that of 0."""
    if not count:
        return np.float32(np.inf)
    least: np.float32 = np.partition(values, -count)[-count]
    return least


def _least(weights: Values, mass: float) -> np.float32:
    """The least weight of the fewest that reach this mass."""
    ordered = np.sort(weights)[::-1]
    before = np.cumsum(ordered, dtype=np.float64) - ordered
    least: np.float32 = ordered[max(int(np.searchsorted(before, mass)), 1) - 1]
    return least
