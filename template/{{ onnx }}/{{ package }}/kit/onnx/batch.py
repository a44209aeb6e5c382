"""Several requests' tokens in one step: their rows share the products of matrices."""

from collections.abc import Callable, Sequence
from typing import Any

from ..contract import Array
from .kv_cache import Room, State, gathered

Found = Array | Exception


def apart(step: Callable[[Any, Array], Array], steps: Sequence[tuple[Any, Array]]) -> list[Found]:
    """Each step by itself; the exception of one that fails stands in its place."""
    found: list[Found] = []
    for request, x in steps:
        try:
            found.append(step(request, x))
        except Exception as error:
            found.append(error)
    return found


def together(states: Sequence[State]) -> tuple[Room, int, int]:
    """A room where all of these are, with a free position each, and the slots from first to end.

    Who is in between and has no step computes a row for nothing, and keeps what it has: the row is
    written behind it. So requests may come late, and come and go, and few have to move.
    """
    room = max((state.room for state in states), key=lambda room: len(room.members))
    outside = [state for state in states if state.room is not room]
    free = [slot for slot, member in enumerate(room.members) if member is None]
    slots = sorted([state.slot for state in states if state.room is room] + free[: len(outside)])
    first, end = slots[0], slots[-1] + 1
    between = [member.length for member in room.members[first:end] if member]
    total = 1 + max(*(state.length for state in states), *between)
    if len(slots) < len(states) or end - first > 2 * len(states) or total > room.form.limit:
        return moved(states, room), 0, len(states)
    room.reach(total)
    for state, slot in zip(outside, free, strict=False):
        room.take(state, slot)
    return room, first, end


def moved(states: Sequence[State], old: Room) -> Room:
    """A new room of just these; others of the old one get rooms of their own."""
    total = max(max(1 + state.length, state.room.room) for state in states)
    room = gathered(states, total)
    for member in old.alive:
        gathered([member], member.length)
    return room
