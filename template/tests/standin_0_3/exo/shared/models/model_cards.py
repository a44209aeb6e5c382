"""Cards of models: TOML files in folders."""

import tomllib
from pathlib import Path

from exo.records import Memory, ModelCard, ModelId

_BUILTIN_CARD_DIRS = [Path(__file__).parent]


def cards() -> dict[ModelId, ModelCard]:
    """Every card; exo refuses one with a key that it does not know."""
    found = {}
    for path in [path for folder in _BUILTIN_CARD_DIRS for path in sorted(folder.rglob("*.toml"))]:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        values["model_id"] = name = ModelId(values["model_id"])
        found[name] = ModelCard(**values | {"storage_size": Memory(**values["storage_size"])})
    return found
