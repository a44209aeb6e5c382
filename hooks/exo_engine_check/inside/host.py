"""The host: the exo of this Python, else the stand-in; with this plugin and no other."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from .core import NotRunError, Report, describe, silenced

NODE, API = "exo.orchestration.node", "exo.api.chatgpt_api"


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
    report.write(host="exo itself" if found else "the stand-in for exo")


def only_this_plugin(request: dict[str, Any]) -> None:
    """Hide other plugins of this environment; an editable install of this one is there once."""
    everything: Any = importlib.metadata.entry_points
    wanted = {(e["group"], e["name"], e["value"]) for e in request["entry_points"]}

    def entry_points(**params: Any) -> Any:
        found = everything(**params)
        if not str(params.get("group", "")).startswith("exo."):
            return found
        kept = {(e.group, e.name, e.value): e for e in reversed(list(found))}
        return importlib.metadata.EntryPoints(e for key, e in kept.items() if key in wanted)

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
        """Node and API as no plugin has mended them yet."""
        kept = {name: sys.modules.pop(name) for name in (NODE, API) if name in sys.modules}
        try:
            yield
        finally:
            sys.modules.update(kept)

    @contextlib.contextmanager
    def without_faults(self) -> Iterator[None]:
        """Node and API anew, as they should be."""
        with self.anew():
            _mend_node(self.load(NODE).Node)
            with contextlib.suppress(NotRunError):
                _mend_api(self.load(API))
            yield


def _mend_node(node: Any) -> None:
    """Failed and cut answers end by themselves."""
    faulty, cut = node._process_tensor, node.forward_tensor

    def end(self: Any, request_id: Any) -> None:
        ids = self.buffered_token_output.get(request_id, ([], False))[0]
        self.buffered_token_output[request_id] = (ids, True)
        self.trigger_on_token_callbacks(request_id, [], True)

    async def _process_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any = None, state: Any = None
    ) -> Any:
        result = await faulty(self, base, tensor, request_id, state)
        if result is None:
            end(self, request_id)
        return result

    async def forward_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any, *rest: Any
    ) -> None:
        try:
            await cut(self, base, tensor, request_id, *rest)
        except Exception:
            end(self, request_id)
            raise

    node._process_tensor, node.forward_tensor = _process_tensor, forward_tensor


def _mend_api(api: Any) -> None:
    """Events have whole characters, and no closing mark."""
    faulty, told = api.generate_completion, dict[str, list[int]]()
    names = list(inspect.signature(faulty).parameters)

    def generate_completion(*given: Any, **named: Any) -> Any:
        asked = dict(zip(names, given, strict=False)) | named
        decode, ids = asked["tokenizer"].decode, told.setdefault(asked["request_id"], [])
        before = decode(ids).rstrip("\ufffd")
        ids += [i for i in asked["tokens"] if i != asked["tokenizer"].eos_token_id]
        done = faulty(**asked)
        for key in {"message", "delta"} & done["choices"][0].keys():
            done["choices"][0][key]["content"] = decode(ids).rstrip("\ufffd")[len(before) :]
        return done

    api.generate_completion = generate_completion
