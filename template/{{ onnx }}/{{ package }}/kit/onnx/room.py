"""Where one request's keys and values are: arrays on the device that grow in steps."""

from typing import Any

import numpy as np
import onnxruntime as ort

STEP = 256


def needed(length: int, more: int, limit: int) -> int:
    """How many positions there are with this step. Raises ValueError beyond the model's context."""
    total = length + more
    if total > limit:
        what = "answer" if length else "prompt"
        raise ValueError(
            f"the {what} is too long: with it there are {total} tokens, and the model's context "
            f"ends at {limit}"
        )
    return total


class Room:
    """[1, heads, room, size] for each name."""

    def __init__(
        self, names: list[str], shape: tuple[int, int], kind: Any, memory: tuple[str, int]
    ) -> None:
        self.values: dict[str, Any] = dict.fromkeys(names)
        self.room = 0
        self._shape, self._kind, self._memory = shape, kind, memory

    @property
    def size(self) -> int:
        """The bytes of all arrays."""
        heads, size = self._shape
        return len(self.values) * heads * self.room * size * int(np.dtype(self._kind).itemsize)

    def reach(self, total: int, length: int, limit: int) -> bool:
        """Have room for so many positions, of which `length` are filled; whether arrays are new.

        It doubles, up to STEP, so that few tokens cost a copy.
        """
        if total <= self.room:
            return False
        room = min(limit, max(total, min(2 * self.room, self.room + STEP), 64))
        heads, size = self._shape
        for name, old in self.values.items():
            new = np.zeros((1, heads, room, size), self._kind)
            if length:
                new[:, :, :length] = old.numpy()[:, :, :length]
            self.values[name] = ort.OrtValue.ortvalue_from_numpy(new, *self._memory)
        self.room = room
        return True
