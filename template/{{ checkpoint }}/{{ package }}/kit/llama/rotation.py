"""The angles of rotary position embedding; kit/llama/llama.py turns by them.

S  positions   E  head size
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .config import Config

Angles = NDArray[np.float32]


def rotation(positions: NDArray[np.int64], config: Config) -> tuple[Angles, Angles]:
    """Cosines and signed sines of the positions' angles, [S, 1, 2, E/2] each: one for all heads."""
    angles = np.outer(positions, frequencies(config))  # [S] x [E/2] -> [S, E/2]
    cos, sin = np.cos(angles), np.sin(angles)  # [S, E/2]
    both = np.stack([cos, cos], axis=1)[:, None], np.stack([-sin, sin], axis=1)[:, None]
    return both[0].astype(np.float32), both[1].astype(np.float32)  # [S, 1, 2, E/2] each


@cache
def frequencies(config: Config) -> NDArray[np.float64]:
    """Radians a position, [E/2], scaled as the model's `rope` says.

    linear: Position Interpolation (Chen et al. 2023, arXiv 2306.15595). llama3: Llama 3.1's, as
    transformers' _compute_llama3_parameters has it.
    """
    rope = config.rope
    plain = rope.theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)  # [E/2]
    if rope.kind != "llama3":
        return plain / rope.factor  # [E/2]
    turns = rope.original_context * plain / (2 * np.pi)  # [E/2]: in the context it was trained on
    smooth = (turns - rope.low_frequency) / (rope.high_frequency - rope.low_frequency)  # [E/2]
    smooth = smooth.clip(0, 1)  # [E/2]: 0 for slow planes, which are scaled, 1 for fast ones
    return plain * (smooth + (1 - smooth) / rope.factor)  # [E/2]
