"""Cards of the plugin's models for exo 0.3, and the folders in which it finds their files.

A model's id is the plugin's own, <package>/<id>: a node without the plugin would run a hub's id
with MLX, whatever the card says. exo takes a folder for whole where an index of safetensors names
files that are in it, whatever that index is called (download/download_utils.py).
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exo.download.download_utils import build_model_path
from exo.shared.types.common import ModelId

from ...cards import Model
from ...plugin import Plugin
from ...repository.facts import Facts, read_json
from ...repository.files import downloads_folder, has, tokenizer_here
from ...settings import PREFIX

DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}  # as exo's own cards have them
_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?) ?([MB])\b")


class Offer(NamedTuple):
    """A model as exo is to see it. folder: where files of it are; missing: those that are not."""

    name: str
    model: Model
    folder: Path | None
    missing: str


def model_of(plugin: Plugin, name: str, layers: int) -> Model:
    """The plugin's model that exo knows by this name; of so many layers where it is a folder's."""
    last = name.partition("/")[2]
    return next((m for m in plugin.models.table if m.id == last), Model(last, last, last, layers))


def offers(plugin: Plugin) -> list[Offer]:
    """The plugin's models, and folders that EXO_<ENGINE>_FOLDERS names. Imports the backend."""
    backend = plugin.load_backend()
    patterns = (*getattr(backend, "files", ()), *getattr(backend, "local_files", ()))
    named = os.environ.get(f"{PREFIX}FOLDERS", "")
    folders = {Path(part).name: Path(part).resolve() for part in named.split(":") if part}
    cards = []
    for model in plugin.models.table:
        name = f"{plugin.package}/{model.id}"
        own = folders.pop(model.repository.rpartition("/")[2], None)
        # exo's downloads, those of exo 0.0, the hub's cache.
        usual = (build_model_path(ModelId(name)), downloads_folder(model.repository))
        places = [own] if own else [*usual, tokenizer_here(model.repository)]
        lacks = {place: missing(place, patterns) for place in places if place and place.is_dir()}
        folder = min(lacks, key=lambda place: bool(lacks[place]), default=None)
        cards.append(Offer(name, model, folder, lacks[folder] if folder else "all of its files"))
    for last, folder in folders.items():
        model = Model(last, last, str(folder), Facts(folder).layers)
        cards.append(Offer(f"{plugin.package}/{last}", model, folder, missing(folder, patterns)))
    return cards


def missing(folder: Path, patterns: tuple[str, ...]) -> str:
    """What a folder lacks of a model, as a phrase; empty where it is whole.

    patterns: of what the backend reads, any of the weights; without, the tokenizer is all.
    """
    files = {"tokenizer.json"}
    for index in folder.glob("*.safetensors.index.json"):
        files |= set(read_json(index)["weight_map"].values())
    weights = [pattern for pattern in patterns if not pattern.endswith(".json")]
    if weights and not any(has(folder, [pattern]) for pattern in weights):
        files.add(" or ".join(weights))
    return ", ".join(sorted(name for name in files if not (folder / name).is_file()))


def stage(plugin: Plugin, root: Path) -> Iterator[str]:
    """Write a card for each model and a folder of links for each that is whole; a line on each."""
    for part in ("cards", "models"):
        shutil.rmtree(root / part, ignore_errors=True)
        (root / part).mkdir(parents=True)
    reads = bool(getattr(plugin.load_backend(), "files", ()))
    for offer in offers(plugin):
        folder = offer.name.replace("/", "--")
        text = toml(card(plugin, offer, reads))
        (root / "cards" / f"{folder}.toml").write_text(text, encoding="utf-8")
        if offer.folder is not None and not offer.missing:
            link(root / "models" / folder, offer.folder, plugin.package)
            yield f"{offer.name} is here ({offer.folder})"
        else:
            yield f"{offer.name} is downloaded when it is first used: {offer.missing} not here"


def card(plugin: Plugin, offer: Offer, reads: bool) -> dict[str, Any]:
    """exo's ModelCard. reads: whether weights are read here, and not by a server."""
    facts = Facts(offer.folder or Path("/nonexistent"))
    template, text = facts.chat_template or "", facts.text
    toggle = "enable_thinking" in template
    capabilities = {
        "text": True,
        "thinking": toggle or "<think>" in template,
        "thinking_toggle": toggle,
        "tools": "tools" in template,
    }
    return {
        "model_id": offer.name,
        "n_layers": offer.model.layers,
        "hidden_size": text.get("hidden_size") or 1,
        "supports_tensor": False,
        "tasks": ["TextGeneration"],
        "backends": ["MlxCpu"],  # every node says that it has it; others' parsers die of a new one
        "family": plugin.family,
        "base_model": offer.model.name,
        "quantization": DTYPES.get(str(text.get("dtype") or text.get("torch_dtype")), ""),
        "capabilities": [name for name, has_it in capabilities.items() if has_it],
        "context_length": facts.context or 0,
        "trust_remote_code": False,
        "storage_size": {"in_bytes": _size(offer, reads)},
    }


def _size(offer: Offer, reads: bool) -> int:
    """Bytes: of the files here, else what the name says at two bytes a parameter, at least one."""
    if offer.folder is not None and not offer.missing:
        files = [path for path in offer.folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)
    match = _PARAMETERS.search(offer.model.name) if reads else None
    return int(float(match[1]) * {"M": 2e6, "B": 2e9}[match[2]]) if match else 1


def toml(values: dict[str, Any]) -> str:
    """As TOML, whose texts, numbers and lists are JSON's; tables come last."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for name, table in values.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def link(place: Path, folder: Path, package: str) -> None:
    """A folder of links to a model's files, with the index that exo wants to see."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        target = place / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    index(place, package)


def index(folder: Path, package: str) -> None:
    """Say to exo that a folder is whole."""
    text = json.dumps({"metadata": {}, "weight_map": {"": "tokenizer.json"}})
    (folder / f"{package}.safetensors.index.json").write_text(text, encoding="utf-8")
