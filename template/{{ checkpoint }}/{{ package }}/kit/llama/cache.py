"""The keys and values of one request."""

import numpy as np

from .config import Config
from .llama import Part

STEP = 256


class Cache:
    """Keys and values of a shard's layers, float32; the first `length` positions are filled."""

    def __init__(self, config: Config, layers: int) -> None:
        self.length = 0
        self.config = config
        # Keys lie by position inside each channel: BLAS is slow on queries @ transposed keys.
        self.keys = np.empty((layers, config.kv_heads, config.head_dim, 0), np.float32)
        self.values = np.empty((layers, config.kv_heads, 0, config.head_dim), np.float32)

    def make_room(self, more: int) -> None:
        """Room for more positions; it doubles, up to STEP, so that few tokens cost a copy."""
        needed, room = self.length + more, self.keys.shape[-1]
        limit = self.config.context_length
        if needed > limit:
            what = "answer" if self.length else "prompt"
            raise ValueError(
                f"the {what} is too long: with it there are {needed} tokens, and the model's "
                f"context ends at {limit}"
            )
        if needed > room:
            room = min(limit, max(needed, min(2 * room, room + STEP), 64))
            keys, values = self.keys[..., : self.length], self.values[:, :, : self.length]
            self.keys = np.empty((*keys.shape[:3], room), np.float32)  # [L, K, E, room]
            self.values = np.empty((*values.shape[:2], room, values.shape[3]), np.float32)
            self.keys[..., : self.length], self.values[:, :, : self.length] = keys, values

    def part(self, more: int) -> Part:
        """The next positions in a step; there must be room for them."""
        return Part(more, self.length, self.keys, self.values)

    def copied(self, length: int) -> "Cache":
        """A cache of its own with the first positions of this one."""
        copy = Cache(self.config, len(self.keys))
        copy.make_room(length)
        copy.keys[..., :length] = self.keys[..., :length]
        copy.values[:, :, :length] = self.values[:, :, :length]
        copy.length = length
        return copy
