"""What a plugin hands to the kit, which looks for nothing of its owner's by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from .cards import Cards
from .contract import Backend


@dataclass(frozen=True)
class Plugin:
    """A plugin's package, its models, and how its backend is imported.

    load_backend: imports backend.py when it is called: without the device's SDK, the command and
    exo's own processes still run, and only a process that computes imports it.
    """

    package: str
    load_backend: Callable[[], Backend]
    models: Cards
