"""From logits to the next token id."""

import numpy as np
from numpy.typing import NDArray


def sample(
    logits: NDArray[np.floating], temperature: float, top_p: float, rng: np.random.Generator
) -> int:
    """Choose the next id from the logits of the last position.

    logits: (..., V), any float dtype. Temperature 0 is argmax; else nucleus sampling
    (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"). Raises ValueError where
    the device gave NaN.
    """
    last = logits.reshape(-1, logits.shape[-1])[-1]  # [..., V] -> [V]
    best = int(np.argmax(last))  # of NaN and numbers, NaN
    if np.isnan(last[best]):
        raise ValueError("the logits hold NaN: the device or the model's weights are at fault")
    if not temperature or temperature <= 0:
        return best
    scaled = (last.astype(np.float64) - last[best]) / temperature
    probabilities = np.exp(scaled)
    probabilities /= probabilities.sum()
    if top_p < 1:
        probabilities = _nucleus(probabilities, top_p)
    return int(rng.choice(len(probabilities), p=probabilities))


def _nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.float64]:
    """Keep the fewest ids that together reach top_p, (V,) -> (V,)."""
    order = np.argsort(probabilities)[::-1]
    before = np.cumsum(probabilities[order]) - probabilities[order]
    dropped = order[1:][before[1:] >= top_p]
    kept = probabilities.copy()
    kept[dropped] = 0
    kept /= kept.sum()
    return kept
