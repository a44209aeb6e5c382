"""From logits to the next token id, in vLLM's meaning and order.

The order of vllm/v1/sample/sampler.py (0.22): logprobs are those of the raw logits; then penalties
for repetition, frequency and presence; a temperature below 1e-5 takes the largest logit; else
temperature, min-p, top-k, top-p, and one draw.

A vocabulary of 150,000 is not sorted: its logits are a table (ROWS, columns), and the maximum of a
column says whether anything in it can matter.
"""

import secrets
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..contract import Logprob, Sampling

Floats = NDArray[np.floating]

GREEDY = 1e-5  # a temperature below it is none
_ROWS = 64
_FAR = 50.0  # float32's exp() is far from its ends within this
_DEPTHS = (4.0, 9.0)  # below the largest, in nats: where a nucleus mostly ends


class Sampler:
    """Chooses the tokens of one answer, as its request's Sampling has it.

    prompt: the ids before the answer, which the repetition penalty counts too. Each token takes one
    number of a Philox stream of its own, whose key is the seed: who answers beside it, and where,
    changes nothing.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        self._sampling = sampling
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self._bits = np.random.Philox(key=seed % (1 << 64))
        self._table = np.empty((_ROWS, 0), dtype=np.float32)
        self._by = np.float32(1 / max(sampling.temperature, GREEDY))
        penalties = sampling.presence_penalty or sampling.frequency_penalty
        penalized = penalties or sampling.repetition_penalty != 1.0
        self._penalties = _Penalties(sampling, prompt) if penalized else None

    def sample(self, logits: Floats) -> int:
        """The next id, from the logits (..., V) of the last position, of any float dtype.

        Raises ValueError where the device gave NaN.
        """
        last = _last(logits)
        if self._penalties is not None:
            last = self._penalties.applied(last)
        if self._sampling.temperature < GREEDY:
            token = int(np.argmax(last))  # of NaN and numbers, NaN
            _refuse_nan(last[token])
        else:
            token = self._draw(last)
        if self._penalties is not None:
            self._penalties.add(token)
        return token

    def _draw(self, logits: Floats) -> int:
        """One id by its probability, (V,) -> id."""
        sampling, largest = self._sampling, logits.max()  # of NaN and numbers, NaN
        _refuse_nan(largest)
        if np.isinf(largest):
            return int(np.argmax(logits))
        table = self._scaled(logits)
        largest = np.float32(largest) * self._by
        if sampling.min_p > 0 or 0 < sampling.top_k < logits.size:
            ids, values = self._likeliest(table, largest)
            weights = np.exp(values - largest)
            if sampling.top_p < 1:
                mass = weights.sum(dtype=np.float64) * sampling.top_p
                weights[weights < _least(weights, mass)] = 0
            return int(ids[self._place(weights)[0]])
        # exp(x - largest), but for a factor: a pass over the table less where it may be.
        if abs(largest) > _FAR:
            table -= largest
            largest = np.float32(0)
        np.exp(table, out=table)
        sums = table.sum(axis=0)
        if sampling.top_p < 1:
            mass = sums.sum(dtype=np.float64) * sampling.top_p
            if (found := _heaviest(table, sums, np.exp(largest), mass)) is not None:
                ids, weights = found
                weights[weights < _least(weights, mass)] = 0
                return int(ids[self._place(weights)[0]])
            table *= table >= _least(table.reshape(-1), mass)
            sums = table.sum(axis=0)
        column, left = self._place(sums)
        row, _ = _place_of(_sums(table[:, column]), left)
        return int(row * table.shape[1] + column)

    def _scaled(self, logits: Floats) -> NDArray[np.float32]:
        """The logits over the temperature, (V,) -> (ROWS, columns); nothing else is -inf."""
        columns = -(-logits.size // _ROWS)
        if self._table.shape[1] != columns:
            self._table = np.empty((_ROWS, columns), dtype=np.float32)
        flat = self._table.reshape(-1)
        flat[logits.size :] = -np.inf
        np.multiply(logits, self._by, out=flat[: logits.size], casting="unsafe")
        return self._table

    def _likeliest(
        self, table: NDArray[np.float32], largest: np.float32
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and values that min-p and top-k leave; of equal ones at the end of top-k, all."""
        tops, top_k, floor = table.max(axis=0), self._sampling.top_k, np.float32(-np.inf)
        if self._sampling.min_p > 0:
            floor = largest + np.log(np.float32(min(self._sampling.min_p, 1.0)))
        if 0 < top_k <= tops.size:  # as many columns have one that is as large
            floor = max(floor, np.partition(tops, -top_k)[-top_k])
        ids, values = _at_least(table, tops, floor)
        if 0 < top_k < values.size:
            chosen = values >= np.partition(values, -top_k)[-top_k]
            ids, values = ids[chosen], values[chosen]
        return ids, values

    def _place(self, weights: NDArray[np.float32]) -> tuple[int, float]:
        """As _place_of(), with the next number of the stream as the share of their sum."""
        share = (int(self._bits.random_raw()) >> 11) * 2.0**-53  # [0, 1)
        sums = _sums(weights)
        return _place_of(sums, share * float(sums[-1]))


def logprob(logits: Floats, token: int, most: int) -> Logprob:
    """The log-probability of a token, and of the likeliest, at most `most`, of raw logits."""
    last = _last(logits).astype(np.float32)
    largest = last.max()
    _refuse_nan(largest)
    total = float(largest) + float(np.log(np.exp(last - largest).sum(dtype=np.float64)))
    most = min(most, last.size)
    ids = np.argpartition(last, -most)[-most:] if most else np.zeros(0, dtype=np.int64)
    ids = ids[np.argsort(-last[ids], kind="stable")]
    top = tuple((int(i), float(last[i]) - total) for i in ids)
    return Logprob(token, float(last[token]) - total, top)


class _Penalties:
    """The ids that have come, and how often in the answer.

    Repetition: Keskar et al. 2019 (CTRL), of prompt and answer; presence and frequency: as OpenAI's
    API has them, of the answer.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self._sampling = sampling
        self._result = np.empty(0, dtype=np.float32)
        come = sorted(set(prompt)) if sampling.repetition_penalty != 1.0 else []
        self._places = {token: place for place, token in enumerate(come)}
        self._ids = np.array(come + [0] * 64, dtype=np.int64)
        self._counts = np.zeros(len(self._ids), dtype=np.float32)

    def add(self, token: int) -> None:
        """The answer has one more token."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1

    def applied(self, logits: Floats) -> NDArray[np.float32]:
        """The logits less the penalties, (V,) -> (V,), a copy that is good until the next call."""
        if self._result.shape != logits.shape:
            self._result = np.empty(logits.shape, dtype=np.float32)
        sampling, result = self._sampling, self._result
        result[:] = logits
        ids, counts = self._ids[: len(self._places)], self._counts[: len(self._places)]
        if len(ids) and ids.max() >= len(result):  # a prompt may have what a head lacks
            ids, counts = ids[ids < len(result)], counts[ids < len(result)]
        values = result[ids]
        by = np.float32(sampling.repetition_penalty)
        values = np.where(values > 0, values / by, values * by)
        values -= np.float32(sampling.frequency_penalty) * counts
        values -= np.float32(sampling.presence_penalty) * (counts > 0)
        result[ids] = values
        return result


def _last(logits: Floats) -> Floats:
    last: Floats = logits.reshape(-1, logits.shape[-1])[-1]  # [..., V] -> [V]
    return last


def _refuse_nan(value: np.floating) -> None:
    if np.isnan(value):
        raise ValueError("the logits hold NaN: the device or the model's weights are at fault")


def _at_least(
    table: NDArray[np.float32], tops: NDArray[np.float32], least: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and values of a table that are not below `least`, column by column.

    tops: of each column its maximum, or more.
    """
    columns = np.flatnonzero(tops >= least)
    part = table[:, columns].T
    found, rows = np.nonzero(part >= least)
    return rows * table.shape[1] + columns[found], part[found, rows]


def _heaviest(
    table: NDArray[np.float32], sums: NDArray[np.float32], largest: np.float32, mass: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Ids and weights of the heaviest, which reach this mass; None where that takes many.

    sums: of each column, which is no less than its maximum. largest: of all weights.
    """
    for depth in _DEPTHS:
        least = largest * np.float32(np.exp(-depth))
        if np.count_nonzero(sums >= least) > len(sums) // 4:
            break
        ids, weights = _at_least(table, sums, least)
        if weights.sum(dtype=np.float64) >= mass:
            return ids, weights
    return None


def _least(weights: NDArray[np.float32], mass: float) -> np.float32:
    """The least weight of a nucleus: of the fewest that reach this mass (Holtzman et al. 2020)."""
    ordered = np.sort(weights)[::-1]
    before = np.cumsum(ordered, dtype=np.float64) - ordered
    least: np.float32 = ordered[max(int(np.searchsorted(before, mass)), 1) - 1]
    return least


def _sums(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each weight and all before it."""
    return np.cumsum(weights, dtype=np.float64)


def _place_of(sums: NDArray[np.float64], target: float) -> tuple[int, float]:
    """The first place where the sums exceed the target, and how much of it is left before that."""
    place = int(sums.searchsorted(target, side="right"))
    if place == len(sums):  # by rounding alone: the last that has a weight
        place = int(sums.searchsorted(sums[-1]))
    return place, target - float(sums[place - 1] if place else 0.0)
