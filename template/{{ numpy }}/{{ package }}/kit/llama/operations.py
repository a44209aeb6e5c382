"""The device's own operations: the table of the plugin's operations.py, where there is one."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from weakref import finalize

from ...names import PACKAGE
from .llama import Array
from .table import NAMES, TOLERANCE, Own

MODULE = f"{PACKAGE}.operations"


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


class OnDevice:
    """Copies of weights on a device: each is made once, and dropped with the array that it is of.

    upload: from a weight to what the device's operations take.
    """

    def __init__(self, upload: Callable[[Array], Any]) -> None:
        self._upload = upload
        self._copies: dict[int, Any] = {}  # by the array's id, which another has after its end

    def __call__(self, weight: Array) -> Any:
        """The weight's copy."""
        key = id(weight)
        if key not in self._copies:
            self._copies[key] = self._upload(weight)
            finalize(weight, self._copies.pop, key, None)
        return self._copies[key]
