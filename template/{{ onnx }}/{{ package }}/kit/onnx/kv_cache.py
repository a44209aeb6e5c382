"""Where requests' keys and values are: arrays on the device that grow in steps."""

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
    """What all rooms of a session share. limit: the most positions; memory: where arrays are."""

    names: tuple[str, ...]
    heads: int
    size: int
    kind: Any
    memory: tuple[str, int]
    limit: int


class State:
    """One request's keys and values: a slot of a room, of which `length` positions are filled."""

    def __init__(self, form: Form) -> None:
        self.room, self.slot, self.length = Room(form, 1), 0, 0
        self.room.members[0] = self

    @property
    def size(self) -> int:
        """The bytes of its slot."""
        return self.room.size

    def copied(self, length: int) -> "State":
        """A new one with the first positions of this one."""
        copy = State(self.room.form)
        copy.room.reach(length)
        copy.room.copy(self, length, 0)
        copy.length = length
        return copy

    def forget(self) -> None:
        """Give the slot back; those who are left where few are move to a smaller room."""
        self.room.members[self.slot] = None
        alive = self.room.alive
        if alive and 2 * len(alive) < len(self.room.members):
            gathered(alive, self.room.room)


class Room:
    """[slots, heads, room, size] for each name. A slot is one request's, or nobody's.

    Several slots are on the CPU only, where those in a row can be bound as they lie here.
    """

    def __init__(self, form: Form, slots: int) -> None:
        self.form, self.room = form, 0
        self.members: list[State | None] = [None] * slots
        self._values: dict[str, Any] = {}
        self._bindings: dict[tuple[int, int], Any] = {}

    @property
    def alive(self) -> list[State]:
        """Those who are here."""
        return [member for member in self.members if member]

    @property
    def size(self) -> int:
        """The bytes of one slot."""
        f = self.form
        return len(f.names) * f.heads * self.room * f.size * int(np.dtype(f.kind).itemsize)

    def reach(self, total: int) -> None:
        """Have room for so many positions.

        It doubles, up to STEP, so that few tokens cost a copy.
        """
        if total <= self.room:
            return
        f = self.form
        room = min(f.limit, max(total, min(2 * self.room, self.room + STEP), 64))
        for name in f.names:
            new = np.zeros((len(self.members), f.heads, room, f.size), f.kind)
            if self.room:
                new[:, :, : self.room] = self._values[name].numpy()
            self._values[name] = ort.OrtValue.ortvalue_from_numpy(new, *f.memory)
        self.room, self._bindings = room, {}

    def copy(self, state: State, length: int, slot: int) -> None:
        """Put another's first positions into a slot; there must be room for them."""
        if not length:
            return
        for name, value in self._values.items():
            mine, its = value.numpy(), state.room._values[name].numpy()  # the CPU's are no copies
            mine[slot, :, :length] = its[state.slot, :, :length]
            if self.form.memory[0] != "cpu":
                value.update_inplace(mine)

    def take(self, state: State, slot: int) -> None:
        """Let a request move in, where nobody is."""
        self.copy(state, state.length, slot)
        state.room.members[state.slot] = None
        state.room, state.slot, self.members[slot] = self, slot, state

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


def gathered(states: Sequence[State], total: int) -> Room:
    """A new room of just these, with room for `total` positions of each."""
    room = Room(states[0].room.form, len(states))
    room.reach(total)
    for slot, state in enumerate(states):
        room.take(state, slot)
    return room
