"""What checks get by parameter name: the plugin as this process has it, each thing made once."""

import sys
from collections.abc import Callable
from typing import Any

from . import host, importing
from .check import BrokenError, NotRunError
from .driver import Driver
from .events import Events, once
from .exo_0_3 import Node

ENGINES, MODELS, DETECTORS = "exo.inference_engines", "exo.models", "exo.device_detectors"


class Fixtures:
    """The properties are the names that a check's parameters may have."""

    def __init__(self, events: Events) -> None:
        self.events, self.request = events, events.request
        self.made: dict[Any, Any] = {}  # by the function that makes it

    @once
    def imported(self) -> importing.Imported:
        """The plugin's modules, imported in exo's order, and what that brought."""
        host.find(self.events)
        host.only_this_plugin(self.request)
        imported = importing.Imported()
        importing.discovery(self.events, imported, self._modules(MODELS, DETECTORS))
        with self.events.step("importing exo with the plugin's models"):
            imported.exo = host.Exo()
        for name in (host.NODE, host.API):  # before the engine, which may patch them
            with self.events.step(f"importing {name}"):
                try:
                    imported.exo.load(name)
                except NotRunError:
                    continue
        imported.before = importing.collectors()
        for module in self._modules(ENGINES):
            importing.observe(self.events, imported, module)
        return imported

    def _modules(self, *groups: str) -> list[str]:
        entries = self.request["entry_points"]
        modules = [
            e["value"].rpartition(":")[0] for g in groups for e in entries if e["group"] == g
        ]
        return list(dict.fromkeys(modules))

    def _values(self, group: str) -> dict[str, Any]:
        """What each entry point of a group names."""
        values: dict[str, Any] = {}
        for entry in [e for e in self.request["entry_points"] if e["group"] == group]:
            module, _, name = entry["value"].rpartition(":")
            if module in self.imported.errors:
                raise self.imported.errors[module]
            if not hasattr(sys.modules[module], name):
                raise BrokenError(f"{module} has no {name}, which an entry point names")
            values[entry["name"]] = getattr(sys.modules[module], name)
        if not values:
            raise NotRunError(f"no entry point of {group} leads to anything")
        return values

    @once
    def cards(self) -> dict[str, Any]:
        """The plugin's model cards."""
        tables = [value for value in self._values(MODELS).values() if isinstance(value, dict)]
        cards = {name: card for table in tables for name, card in table.items()}
        if not cards:
            raise NotRunError("the plugin has no model cards")
        return cards

    @once
    def detectors(self) -> dict[str, Any]:
        """What the entry points of `exo.device_detectors` name."""
        return self._values(DETECTORS)

    @once
    def engines(self) -> dict[str, Any]:
        """What the entry points of `exo.inference_engines` name: classes."""
        return self._values(ENGINES)

    @once
    def make(self) -> Callable[[], Any]:
        """Make the first engine as exo does."""
        name = next(iter(self.engines))
        base: Any = self.imported.exo.downloads.NoopShardDownloader

        async def ensure_shard(_: Any, shard: Any, inference_engine_name: str) -> Any:
            return self.driver.device.folder

        downloader = type("Local", (base,), {"ensure_shard": ensure_shard})()
        load = self.imported.exo.discovery.load_inference_engine

        def make() -> Any:
            with self.events.step(f"loading the engine {name}"):
                return load(name, downloader)

        return make

    @once
    def engine(self) -> Any:
        """An engine that has just been made."""
        return self.make()

    @property
    def collectors(self) -> list[Any]:
        """The metrics that the plugin has registered so far."""
        return list(importing.collectors() - self.imported.before)

    @once
    def node(self) -> Node:
        """The plugin as exo 0.3 has it."""
        return Node(self.events)

    @once
    def driver(self) -> Driver:
        """Drives engines on the plugin's device as nodes of exo do."""
        try:
            cards = self.cards
        except (NotRunError, BrokenError):
            cards = {}  # a device may need none
        return Driver(self.events, self.imported.exo, self.make, cards)
