"""What is seen at the end of each exo: EX95, and how a runner of exo 0.3 ends."""

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..check import Check
from ..events import Events
from ..exo_0_3 import ENDLESS, Node


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


class EX856(Check, row="faults", host="0.3"):
    "A runner ends when exo 0.3 tells it to"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """At its end exo sends SIGTERM to a runner, waits three seconds, and kills it
        (utils/async_process.py): until then the device has to be given back, in the middle of an
        answer, too."""
        runner = await node.runner()
        await runner.begin(ENDLESS)
        if not await runner.stop():
            yield "a runner goes on for three seconds after SIGTERM"
