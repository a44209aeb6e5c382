"""EX0: the project can be read."""

from collections.abc import Iterator

from ..inside.check import Check
from ..plugin import Plugin
from ..report import Fault, Place


class EX001(Check):
    "The project's metadata can be read"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """pip can't build or install what it can't read, and exo finds a plugin only through the
        entry points of an installed distribution (plugin_discovery.py:60). Fix the file; the build
        says the same: `python -m build`."""
        yield from plugin.problems


class EX002(Check):
    "Every module of the package can be read"

    @staticmethod
    def check(plugin: Plugin) -> Iterator[Fault]:
        """A module that Python can't parse fails when it is imported: exo passes over models and
        detectors with no word below DEBUG=1 (plugin_discovery.py:118,142), and an engine ends exo
        at its start (plugin_discovery.py:184). Fix the file, or take it out of the package."""
        for module in plugin.package:
            _ = module.tree
            if module.problem:
                yield Fault(Place(module.path, module.problem_line), module.problem)
