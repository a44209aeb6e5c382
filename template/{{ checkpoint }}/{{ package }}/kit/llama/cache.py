"""The keys and values of one request."""

import numpy as np

from .config import Config

STEP = 256


class Cache:
    """Keys and values of a shard's layers, float32; the first `length` positions are filled."""

    def __init__(self, config: Config, layers: int) -> None:
        self.length = 0
        self.limit = config.context_length
        # Keys lie by position inside each channel: BLAS is slow on queries @ transposed keys.
        self.keys = np.empty((layers, config.kv_heads, config.head_dim, 0), np.float32)
        self.values = np.empty((layers, config.kv_heads, 0, config.head_dim), np.float32)

    def make_room(self, more: int) -> None:
        """Room for more positions; it doubles, up to STEP, so that few tokens cost a copy."""
        needed, room = self.length + more, self.keys.shape[-1]
        if needed > self.limit:
            what = "answer" if self.length else "prompt"
            raise ValueError(
                f"the {what} is too long: with it there are {needed} tokens, and the model's "
                f"context ends at {self.limit}"
            )
        if needed > room:
            room = min(self.limit, max(needed, min(2 * room, room + STEP), 64))
            keys, values = self.keys[..., : self.length], self.values[:, :, : self.length]
            self.keys = np.empty((*keys.shape[:3], room), np.float32)  # [L, K, E, room]
            self.values = np.empty((*values.shape[:2], room, values.shape[3]), np.float32)
            self.keys[..., : self.length], self.values[:, :, : self.length] = keys, values
