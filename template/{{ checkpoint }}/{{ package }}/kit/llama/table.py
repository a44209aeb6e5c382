"""What a device has of its own of the reference's operations."""

from dataclasses import dataclass, fields, replace
from typing import Any

from .llama import REFERENCE, Operations

NAMES = tuple(field.name for field in fields(Operations))
TOLERANCE = 1e-4  # of the largest number of a row


@dataclass(frozen=True)
class Own:
    """A device's operations, and how far from the reference they may be. whose: for the board."""

    table: dict[str, Any]
    tolerance: float = TOLERANCE
    whose: str = "yours"

    @property
    def operations(self) -> Operations:
        """The whole table: what the device hasn't is the reference's."""
        return replace(REFERENCE, **self.table)
