"""The device's own operations: the table of the plugin's operations.py, where there is one."""

import sys
from dataclasses import dataclass, fields, replace
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ...names import PACKAGE
from .llama import REFERENCE, Operations

MODULE = f"{PACKAGE}.operations"
NAMES = tuple(field.name for field in fields(Operations))
TOLERANCE = 1e-4  # of the largest number of a row


@dataclass(frozen=True)
class Own:
    """What operations.py names, and how far from the reference it may be."""

    table: dict[str, Any]
    tolerance: float = TOLERANCE

    @property
    def operations(self) -> Operations:
        """The whole table: what isn't in operations.py is the reference's."""
        return replace(REFERENCE, **self.table)


def written() -> bool:
    """Whether the plugin has an operations.py."""
    return MODULE in sys.modules or find_spec(MODULE) is not None


def own() -> Own:
    """Read the plugin's operations.py. Raises ValueError where its table is none."""
    return read(import_module(MODULE)) if written() else Own({})


def read(module: ModuleType) -> Own:
    """What a module says of operations."""
    table = getattr(module, "OPERATIONS", None)
    if not isinstance(table, dict):
        raise ValueError(f"{module.__name__} has no dict OPERATIONS")
    for name, function in table.items():
        if name not in NAMES:
            raise ValueError(f"OPERATIONS has {name!r}, which is none of {', '.join(NAMES)}")
        if not callable(function):
            raise ValueError(f"OPERATIONS[{name!r}] is {function!r}, and no function")
    return Own(dict(table), float(getattr(module, "TOLERANCE", TOLERANCE)))
