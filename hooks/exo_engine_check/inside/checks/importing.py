"""EX7: importing the plugin's modules, in exo's order."""

from collections.abc import Iterator
from typing import Any

from ..check import Check, NotRunError
from ..importing import Imported

SECONDS = 1.0


class EX701(Check):
    "The plugin survives being imported"

    @staticmethod
    def check(imported: Imported) -> Iterator[Any]:
        """An error in models or detectors loses them without a word (plugin_discovery.py:117,141),
        one in the engine ends exo's start (plugin_discovery.py:184), and `sys.exit` ends the node:
        it is no Exception. The line is the last one in the plugin's own files."""
        for error in imported.errors.values():
            if isinstance(error, NotRunError):
                raise error
            yield str(error), error.__cause__


class EX702(Check):
    "The models, the detector and the package import nothing of exo"

    @staticmethod
    def check(imported: Imported) -> Iterator[Any]:
        """exo loads the models of plugins while `exo.models` is being imported (models.py:165-168):
        an import of exo from there finds a half-made module, fails, and the plugin's models are
        gone without a word (plugin_discovery.py:117). Import exo in the engine's module alone, or
        inside a function."""
        if "exo" in imported.brought:
            yield "models and detectors import exo"


class EX703(Check):
    "Discovery's imports are quick"

    @staticmethod
    def check(imported: Imported) -> Iterator[Any]:
        """Every start of exo imports the models and detectors of every installed plugin, whichever
        engine is used (plugin_discovery.py:109-112, 133-136). Import libraries inside the functions
        that need them."""
        if imported.seconds > SECONDS:
            yield f"models and detectors take {imported.seconds:.1f} s to import"


class EX704(Check):
    "An import starts nothing and leaves nothing"

    @staticmethod
    def check(imported: Imported) -> Iterator[Any]:
        """exo imports the modules at its start (plugin_discovery.py:112,136,184), in every process.
        A thread, process, socket or event loop that starts there is there for whoever only looks,
        and logging or an environment that is set there is set for exo too. Do it when a shard is
        loaded, for the plugin alone."""
        yield from imported.left
