"""The KV cache: blocks of slots, arrays on the device that grow in steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Form(NamedTuple):
    """What all blocks of a session share. limit: the most positions; memory: where arrays are."""

    names: tuple[str, ...]
    heads: int
    size: int
    kind: Any
    memory: tuple[str, int]
    limit: int


class Slot:
    """One request's keys and values: the block's row `index`, `length` positions filled."""

    def __init__(self, form: Form) -> None:
        self.block, self.index, self.length = Block(form, 1), 0, 0
        self.block.members[0] = self

    @property
    def size(self) -> int:
        """The bytes of its slot."""
        return self.block.size

    def copied(self, length: int) -> "Slot":
        """A new one with the first positions of this one."""
        copy = Slot(self.block.form)
        copy.block.reach(length)
        copy.block.copy(self, length, 0)
        copy.length = length
        return copy

    def forget(self) -> None:
        """Give the slot back; those who are left where few are move to a smaller block."""
        self.block.members[self.index] = None
        alive = self.block.alive
        if alive and 2 * len(alive) < len(self.block.members):
            gathered(alive, self.block.positions)


class Block:
    """[slots, heads, positions, size] for each name. A slot is one request's, or nobody's.

    Several slots are on the CPU only, where those in a row can be bound as they lie here.
    """

    def __init__(self, form: Form, slots: int) -> None:
        self.form, self.positions = form, 0
        self.members: list[Slot | None] = [None] * slots
        self._values: dict[str, Any] = {}
        self._bindings: dict[tuple[int, int], Any] = {}

    @property
    def alive(self) -> list[Slot]:
        """Those who are here."""
        return [member for member in self.members if member]

    @property
    def size(self) -> int:
        """The bytes of one slot."""
        f = self.form
        return len(f.names) * f.heads * self.positions * f.size * int(np.dtype(f.kind).itemsize)

    def reach(self, total: int) -> None:
        """Hold so many positions.

        It doubles, up to STEP, so that few tokens cost a copy.
        """
        if total <= self.positions:
            return
        f = self.form
        positions = min(f.limit, max(total, min(2 * self.positions, self.positions + STEP), 64))
        for name in f.names:
            new = np.zeros((len(self.members), f.heads, positions, f.size), f.kind)
            if self.positions:
                new[:, :, : self.positions] = self._values[name].numpy()
            self._values[name] = ort.OrtValue.ortvalue_from_numpy(new, *f.memory)
        self.positions, self._bindings = positions, {}

    def copy(self, other: Slot, length: int, index: int) -> None:
        """Put another's first positions into a slot; the block must hold them."""
        if not length:
            return
        for name, value in self._values.items():
            mine, its = value.numpy(), other.block._values[name].numpy()  # the CPU's are no copies
            mine[index, :, :length] = its[other.index, :, :length]
            if self.form.memory[0] != "cpu":
                value.update_inplace(mine)

    def take(self, slot: Slot, index: int) -> None:
        """Let a request move in, where nobody is."""
        self.copy(slot, slot.length, index)
        slot.block.members[slot.index] = None
        slot.block, slot.index, self.members[index] = self, index, slot

    def bound(self, session: Any, first: int, end: int) -> Any:
        """A session's binding to these slots: keys and values are read and written in place."""
        if (first, end) not in self._bindings:
            binding = self._bindings[first, end] = session.io_binding()
            for name, value in self._values.items():
                if end - first < len(self.members):
                    value = ort.OrtValue.ortvalue_from_numpy(value.numpy()[first:end])
                binding.bind_ortvalue_input(name, value)
                binding.bind_ortvalue_output(f"new_{name}", value)
        return self._bindings[first, end]


def gathered(slots: Sequence[Slot], total: int) -> Block:
    """A new block of just these, of `total` positions each."""
    block = Block(slots[0].block.form, len(slots))
    block.reach(total)
    for index, slot in enumerate(slots):
        block.take(slot, index)
    return block
