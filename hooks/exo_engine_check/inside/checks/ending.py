"""EX95: what is seen at the end."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

from ..check import Check
from ..events import Events


class EX952(Check):
    "Nothing is written to stdout"

    @staticmethod
    def check() -> Iterator[str]:
        """stdout belongs to exo: `exo run` prints its answer there (main.py:254), and the terminal
        view is drawn over it. Use `logging`."""
        yield from ()  # the checker has read it


class EX953(Check, row="metrics"):
    "The engine's module can be imported twice"

    @staticmethod
    def check(events: Events, engines: dict[str, Any]) -> Iterator[str]:
        """A module is imported anew after a failed import, and exo registers metrics in the same
        registry (prometheus_metrics.py:15). A second registration of a name is a ValueError,
        "Duplicated timeseries": catch it, and use a metric that is not registered."""
        for engine in engines.values():
            package = engine.__module__.partition(".")[0]
            for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
                del sys.modules[name]
            with events.step(f"importing {engine.__module__} a second time"):
                importlib.import_module(engine.__module__)
        yield from ()
