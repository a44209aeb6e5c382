"""exo 0.0: that of this Python, else the stand-in; with this plugin and no other."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .check import NotRunError
from .events import Events, describe, silenced

# What a plugin's own stand-in leaves out: exo's node, its API and who has which layers.
_NODE = Path(__file__).parents[1] / "standin_node" / "exo"
NODE, API = "exo.orchestration.node", "exo.api.chatgpt_api"


def put_on_path(events: Events) -> None:
    """Use the stand-in where this Python has no exo with plugins; say which it is."""
    try:
        spec = importlib.util.find_spec("exo.inference.plugin_discovery")
    except Exception:  # whatever a foreign module called exo does at its import
        spec = None
    for name in [n for n in sys.modules if n.partition(".")[0] == "exo"]:
        del sys.modules[name]
    if spec is None:
        sys.path.insert(0, events.request["standins"]["0.0"])
        importlib.invalidate_caches()
        exo: Any = importlib.import_module("exo")
        exo.__path__.append(str(_NODE))
    events.write(host="exo 0.0 itself" if spec else "the stand-in for exo 0.0")


def only_this_plugin(request: dict[str, Any]) -> None:
    """Hide other plugins of this environment; an editable install of this one is there once."""
    everything: Any = importlib.metadata.entry_points
    own = {(e["group"], e["name"], e["value"]) for e in request["entry_points"]}

    def entry_points(**params: Any) -> Any:
        entries = everything(**params)
        if not str(params.get("group", "")).startswith(("exo.", "exo_engine_template.")):
            return entries
        each = {(e.group, e.name, e.value): e for e in reversed(list(entries))}
        return importlib.metadata.EntryPoints(e for key, e in each.items() if key in own)

    importlib.metadata.entry_points = entry_points


class Exo:
    """exo's modules, imported with the plugin's models."""

    def __init__(self) -> None:
        load: Any = importlib.import_module
        self.discovery = load("exo.inference.plugin_discovery")
        self.models = load("exo.models")
        self.shard = load("exo.inference.shard").Shard
        self.downloads = load("exo.download.shard_download")

    def load(self, name: str) -> Any:
        """A module of exo's that not every exo has, or can import here."""
        try:
            with silenced():
                return importlib.import_module(name)
        except Exception as error:
            raise NotRunError(f"{name} can't be imported: {describe(error)}") from error

    @contextlib.contextmanager
    def anew(self) -> Iterator[None]:
        """Node and API as no plugin has patched them yet."""
        before = {name: sys.modules.pop(name) for name in (NODE, API) if name in sys.modules}
        try:
            yield
        finally:
            sys.modules.update(before)
