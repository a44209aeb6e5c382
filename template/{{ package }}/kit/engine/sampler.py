"""From logits to the next token id."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..contract import Sampling

_SHARED = np.random.default_rng()  # for whoever names no seed


class Sampler:
    """Chooses the tokens of one answer, as its request's Sampling has it.

    The order is that of transformers' logits processors: penalties, temperature, top-k, top-p,
    min-p. prompt: the ids before the answer; the repetition penalty counts them too.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        self._how = sampling
        self._rng = _SHARED if sampling.seed is None else np.random.default_rng(sampling.seed)
        self._repeats = sampling.repetition_penalty != 1.0
        self._counts = Counter[int]()  # of the answer's ids
        self._penalized = bool(
            self._repeats or sampling.presence_penalty or sampling.frequency_penalty
        )
        self._seen = set(prompt) if self._repeats else set[int]()

    def sample(self, logits: NDArray[np.floating]) -> int:
        """The next id, from the logits (..., V) of the last position, of any float dtype.

        Temperature 0 is argmax. Raises ValueError where the device gave NaN.
        """
        last = logits.reshape(-1, logits.shape[-1])[-1]  # [..., V] -> [V]
        if self._penalized:
            last = self._penalize(last.astype(np.float64))
        token = int(np.argmax(last))  # of NaN and numbers, NaN
        if np.isnan(last[token]):
            raise ValueError("the logits hold NaN: the device or the model's weights are at fault")
        if self._how.temperature > 0:
            token = self._draw(last, token)
        if self._penalized:
            self._counts[token] += 1
            self._seen.add(token)
        return token

    def _penalize(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Repetition as CTRL has it (Keskar et al. 2019), presence and frequency as OpenAI."""
        if self._repeats:
            ids = [i for i in self._seen if i < len(logits)]
            by = self._how.repetition_penalty
            logits[ids] = np.where(logits[ids] > 0, logits[ids] / by, logits[ids] * by)
        for token, count in self._counts.items():
            logits[token] -= self._how.presence_penalty + self._how.frequency_penalty * count
        return logits

    def _draw(self, logits: NDArray[np.floating], best: int) -> int:
        how = self._how
        probabilities = np.exp((logits.astype(np.float64) - logits[best]) / how.temperature)
        if 0 < how.top_k < len(probabilities):
            least = np.partition(probabilities, -how.top_k)[-how.top_k]
            probabilities[probabilities < least] = 0
        probabilities /= probabilities.sum()
        if how.top_p < 1:
            probabilities = _nucleus(probabilities, how.top_p)
        if how.min_p > 0:  # Nguyen et al. 2024
            probabilities[probabilities < how.min_p * probabilities.max()] = 0
        probabilities /= probabilities.sum()
        return int(self._rng.choice(len(probabilities), p=probabilities))


def _nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.float64]:
    """The fewest ids that together reach top_p, (V,) -> (V,): nucleus sampling (Holtzman et al.
    2020, "The Curious Case of Neural Text Degeneration")."""
    order = np.argsort(probabilities)[::-1]
    before = np.cumsum(probabilities[order]) - probabilities[order]
    dropped = order[1:][before[1:] >= top_p]
    kept = probabilities.copy()
    kept[dropped] = 0
    return kept
