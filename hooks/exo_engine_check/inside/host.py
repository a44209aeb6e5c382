"""exo 0.0: that of this Python, else the stand-in; with this plugin and no other."""

import contextlib
import functools
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


def put_on_path(events: Events, version: str, own: str) -> bool:
    """Whether this Python has an exo, by a module of its own; else its stand-in is used."""
    try:
        is_here = importlib.util.find_spec(own) is not None
    except Exception:  # another exo, or whatever a foreign module of that name does at its import
        is_here = False
    for name in [n for n in sys.modules if n.partition(".")[0] == "exo"]:
        del sys.modules[name]
    if not is_here:
        sys.path.insert(0, events.request["standins"][version])
        importlib.invalidate_caches()
    events.write(host=f"exo {version} itself" if is_here else f"the stand-in for exo {version}")
    return is_here


def find(events: Events) -> None:
    """The exo 0.0 that has plugins, or the stand-in, with exo's node."""
    if not put_on_path(events, "0.0", "exo.inference.plugin_discovery"):
        exo: Any = importlib.import_module("exo")
        exo.__path__.append(str(_NODE))


def only_this_plugin(request: dict[str, Any]) -> None:
    """Hide other plugins of this environment; an editable install of this one is there once."""
    everything: Any = importlib.metadata.entry_points
    own = {(e["group"], e["name"], e["value"]) for e in request["entry_points"]}

    @functools.cache  # exo asks for each engine that it makes, and every distribution is read
    def of_plugin(group: str) -> Any:
        entries = reversed(list(everything(group=group)))
        each = {(e.group, e.name, e.value): e for e in entries}
        return importlib.metadata.EntryPoints(e for key, e in each.items() if key in own)

    def entry_points(**params: Any) -> Any:
        group = str(params.get("group", ""))
        if group.startswith(("exo.", "exo_engine_template.")):
            return of_plugin(group).select(**params)
        return everything(**params)

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
