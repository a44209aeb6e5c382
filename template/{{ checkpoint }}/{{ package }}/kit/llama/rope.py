"""Rotary position embedding: what config.json says of it, and the frequencies that follow."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..repository.facts import RepositoryError, rope_parameters
from .reader import Reader

ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class Rope:
    """One embedding: `default`, `linear`, `dynamic`, `llama3` or `yarn`.

    low_frequency, high_frequency: turns in the original context between which llama3 and yarn go
    from scaled planes to plain ones (yarn's beta_slow and beta_fast). original_context: positions
    of the training. attention: yarn's factor of cosines and sines.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_frequency: float = 1.0
    high_frequency: float = 1.0
    original_context: int = 0
    attention: float = 1.0
    truncate: bool = True

    def frequencies(self, size: int, length: int = 0) -> NDArray[np.float64]:
        """Radians a position, [E/2], of heads of this size E.

        As transformers 5.24's modeling_rope_utils has them. linear: Position Interpolation (Chen
        et al. 2023, arXiv 2306.15595), dynamic: NTK-aware scaling by the request's length, llama3:
        Llama 3.1's, yarn: Peng et al. 2023 (arXiv 2309.00071).

        length: positions that the request has with this step. Beyond the original context
        dynamic's frequencies follow it, and keys keep those of the step that made them.
        """
        planes = np.arange(0, size, 2) / size  # [E/2]
        if self.kind == "dynamic":
            far = max(length, self.original_context) / self.original_context
            stretched: float = (self.factor * far - (self.factor - 1)) ** (size / (size - 2))
            slowed: NDArray[np.float64] = (self.theta * stretched) ** -planes  # [E/2]
            return slowed
        plain = self.theta**-planes  # [E/2]
        share = self._share(plain, size)  # [E/2]: 0 for slow planes, which are scaled, 1 for fast
        return plain * (share + (1 - share) / self.factor)  # [E/2]

    def _share(self, plain: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        """How much of each plane's plain frequency stays, [E/2]."""
        if self.kind == "llama3":
            turns = self.original_context * plain / (2 * np.pi)  # [E/2]
            smooth = (turns - self.low_frequency) / (self.high_frequency - self.low_frequency)
            return smooth.clip(0, 1)
        if self.kind != "yarn":
            return np.zeros_like(plain)
        low, high = self._plane(self.high_frequency, size), self._plane(self.low_frequency, size)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        high += 0.001 if low == high else 0
        return 1 - ((np.arange(size // 2) - low) / (high - low)).clip(0, 1)

    def _plane(self, turns: float, size: int) -> float:
        """The plane that turns so often in the original context."""
        of = math.log(self.original_context / (turns * 2 * math.pi))
        return size * of / (2 * math.log(self.theta))


def read_rope(content: dict[str, Any], head_dim: int) -> Rope:
    """The rotary embedding, as config.json and its defaults together say it.

    Raises RepositoryError.
    """
    rope = rope_parameters(content)
    read = Reader(rope)
    theta = read.number("rope_theta", 10000.0)
    # Nested objects are parameters by kind of layer, which none of these models has.
    kind = read.get("rope_type", read.get("type", "default"))
    if any(isinstance(value, dict) for value in rope.values()):
        kind = rope
    partial = read.get("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise RepositoryError(f"partial_rotary_factor is {partial!r}; only 1.0 is known")
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, kind, read.number("factor"))
    usual = content["max_position_embeddings"]
    if kind == "dynamic":
        if head_dim < 4:
            raise RepositoryError(f"head_dim is {head_dim}; dynamic rope needs 4 or more")
        return Rope(theta, kind, read.number("factor"), original_context=usual)
    beside = content.get(ORIGINAL)  # it counts where it is there
    own = rope if beside is None else rope | {ORIGINAL: beside}
    original = Reader(own).count(ORIGINAL, usual)
    if kind == "yarn":
        return _yarn(theta, read, original, usual)
    if kind != "llama3":
        known = "default, linear, dynamic, llama3, yarn"
        raise RepositoryError(f"the rope type {kind!r} is none of {known}")
    low, high = read.number("low_freq_factor"), read.number("high_freq_factor")
    if low >= high:
        raise RepositoryError(f"low_freq_factor {low} is not below high_freq_factor {high}")
    return Rope(theta, kind, read.number("factor"), low, high, original)


def _yarn(theta: float, read: Reader, original: int, context: int) -> Rope:
    """Transformers' _compute_yarn_parameters; a factor of null is how far the context goes."""
    if theta <= 1:
        raise RepositoryError(f"rope_theta is {theta}; yarn needs one above 1")
    far = read.content.get("factor", 0)
    factor = context / original if far is None else read.number("factor")
    attention = read.get("attention_factor", None)
    if attention is not None:
        attention = read.number("attention_factor")
    elif read.content.get("mscale") and read.content.get("mscale_all_dim"):
        attention = _scale(factor, read.number("mscale"))
        attention /= _scale(factor, read.number("mscale_all_dim"))
    else:
        attention = _scale(factor)
    slow, fast = (
        read.number(key) if read.content.get(key) else usual
        for key, usual in (("beta_slow", 1.0), ("beta_fast", 32.0))
    )
    truncate = read.flag("truncate", usual=True)
    return Rope(theta, "yarn", factor, slow, fast, original, attention, truncate)


def _scale(factor: float, by: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1
