"""The host: the exo of this Python, else the stand-in; with this plugin and no other."""

import copy
import importlib
import importlib.metadata
import importlib.util
import sys
from typing import Any

from .core import Report, describe
from .guards import silenced

NODE = "exo.orchestration.node"


def put_on_path(report: Report) -> None:
    """Use the stand-in where this Python has no exo with plugins; say which it is."""
    try:
        found = importlib.util.find_spec("exo.inference.plugin_discovery")
    except Exception:  # whatever a foreign module called exo does at its import
        found = None
    for name in [n for n in sys.modules if n.partition(".")[0] == "exo"]:
        del sys.modules[name]
    if found is None:
        sys.path.insert(0, report.request["standin"])
        importlib.invalidate_caches()
    report.write(host="real" if found else "stand-in")


def only_this_plugin(request: dict[str, Any]) -> None:
    """Hide other plugins of this environment; an editable install of this one is there once."""
    everything: Any = importlib.metadata.entry_points
    wanted = {(e["group"], e["name"], e["value"]) for e in request["entry_points"]}

    def entry_points(**params: Any) -> Any:
        found = everything(**params)
        if not str(params.get("group", "")).startswith("exo."):
            return found
        kept: dict[tuple[str, str], Any] = {}
        for entry in found:
            if (entry.group, entry.name, entry.value) in wanted:
                kept.setdefault((entry.group, entry.name), entry)
        return importlib.metadata.EntryPoints(kept.values())

    importlib.metadata.entry_points = entry_points


def _module(name: str) -> Any:
    return importlib.import_module(name)


class Exo:
    """exo's modules, its own cards, and the cards that it has with the plugin's."""

    def __init__(self) -> None:
        with silenced():
            self.discovery = _module("exo.inference.plugin_discovery")
            with_plugins = self.discovery.discover_models
            self.discovery.discover_models = dict
            self.own_cards = copy.deepcopy(_module("exo.models").model_cards)
            del sys.modules["exo.models"]
            self.discovery.discover_models = with_plugins
        self.models = _module("exo.models")
        self.shard = _module("exo.inference.shard").Shard
        self.downloads = _module("exo.download.shard_download")
        self.node: Any = None
        self.no_node = ""
        try:
            with silenced():
                self.node = _module(NODE).Node
        except Exception as error:  # an exo without all of its requirements
            self.no_node = f"{NODE} can't be imported: {describe(error)}"


def mend_faults(node: Any) -> None:
    """Make exo as it should be, before any plugin mends it: failed answers end by themselves."""
    faulty, cut = node._process_tensor, node.forward_tensor

    def end(self: Any, request_id: Any) -> None:
        ids = self.buffered_token_output.get(request_id, ([], False))[0]
        self.buffered_token_output[request_id] = (ids, True)
        self.trigger_on_token_callbacks(request_id, [], True)

    async def _process_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any = None, state: Any = None
    ) -> Any:
        result = await faulty(self, base_shard, tensor, request_id, state)
        if result is None:
            end(self, request_id)
        return result

    async def forward_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any, *rest: Any
    ) -> None:
        try:
            await cut(self, base_shard, tensor, request_id, *rest)
        except Exception:
            end(self, request_id)
            raise

    node._process_tensor, node.forward_tensor = _process_tensor, forward_tensor
