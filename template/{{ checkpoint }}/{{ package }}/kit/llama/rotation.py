"""The angles of rotary position embedding; kit/llama/llama.py turns by them.

S  positions   R  rows of all requests in a step   E  head size
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .config import Config

Angles = NDArray[np.float32]


def rotations(spans: Sequence[tuple[int, int]], config: Config) -> tuple[Angles, Angles]:
    """Those of a step's requests, each from its first position to its end, [R, 1, 2, E/2] each."""
    positions = [np.arange(*span) for span in spans]
    if config.rope.kind != "dynamic":
        return rotation(np.concatenate(positions), config)
    own = [rotation(at, config, end) for at, (_, end) in zip(positions, spans, strict=True)]
    return np.concatenate([cos for cos, _ in own]), np.concatenate([sin for _, sin in own])


def rotation(
    positions: NDArray[np.int64], config: Config, length: int = 0
) -> tuple[Angles, Angles]:
    """Cosines and signed sines of the positions' angles, [S, 1, 2, E/2] each: one for all heads.

    length: of the request, for Rope.frequencies.
    """
    angles = np.outer(positions, frequencies(config, length))  # [S] x [E/2] -> [S, E/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [S, E/2]
    both = np.stack([cos, cos], axis=1)[:, None], np.stack([-sin, sin], axis=1)[:, None]
    factor = config.rope.attention
    return (factor * both[0]).astype(np.float32), (factor * both[1]).astype(np.float32)


@lru_cache(maxsize=64)
def frequencies(config: Config, length: int = 0) -> NDArray[np.float64]:
    """Radians a position, [E/2] (Rope.frequencies)."""
    return config.rope.frequencies(config.head_dim, length)
