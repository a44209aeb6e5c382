"""Several requests' tokens in one step: their rows share the products of matrices."""

from collections.abc import Callable, Sequence
from typing import Any

from ..contract import Array
from .kv_cache import Block, Slot, gathered

Result = Array | Exception


def apart(step: Callable[[Any, Array], Array], steps: Sequence[tuple[Any, Array]]) -> list[Result]:
    """Each step by itself; the exception of one that fails stands in its place."""
    results: list[Result] = []
    for request, x in steps:
        try:
            results.append(step(request, x))
        except Exception as error:
            results.append(error)
    return results


def together(slots: Sequence[Slot]) -> tuple[Block, int, int]:
    """A block where all of these are, with a free position each, and the rows from first to end.

    Who is in between and has no step computes a row for nothing, and keeps what it has: the row is
    written behind it. So requests may come late, and come and go, and few have to move.
    """
    block = max((slot.block for slot in slots), key=lambda block: len(block.members))
    outside = [slot for slot in slots if slot.block is not block]
    free = [index for index, member in enumerate(block.members) if member is None]
    rows = sorted([s.index for s in slots if s.block is block] + free[: len(outside)])
    first, end = rows[0], rows[-1] + 1
    between = [member.length for member in block.members[first:end] if member]
    total = 1 + max(*(slot.length for slot in slots), *between)
    if len(rows) < len(slots) or end - first > 2 * len(slots) or total > block.form.limit:
        return moved(slots, block), 0, len(slots)
    block.reach(total)
    for slot, index in zip(outside, free, strict=False):
        block.take(slot, index)
    return block, first, end


def moved(slots: Sequence[Slot], old: Block) -> Block:
    """A new block of just these; others of the old one get blocks of their own."""
    total = max(max(1 + slot.length, slot.block.positions) for slot in slots)
    block = gathered(slots, total)
    for member in old.alive:
        gathered([member], member.length)
    return block
