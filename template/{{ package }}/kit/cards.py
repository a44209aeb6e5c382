"""exo's model cards, made of the plugin's table.

exo loads this in the middle of `import exo.models`, so neither this module nor any package above it
imports exo.
"""

from typing import Any

from ..models import TABLE
from ..names import ENGINE_CLASS, ENGINE_NAME
from .contract import Model

# exo would replace a card of its own that has the same id.
_SUFFIX = f"-{ENGINE_NAME.replace('_', '-')}"


def exo_id(model_id: str) -> str:
    """A model's id in exo: with the engine's name behind it."""
    return model_id if model_id.endswith(_SUFFIX) else model_id + _SUFFIX


BY_ID: dict[str, Model] = {exo_id(model.id): model for model in TABLE}
MODELS: dict[str, dict[str, Any]] = {
    name: {"layers": model.layers, "repo": {ENGINE_CLASS: model.repository}}
    for name, model in BY_ID.items()
}
PRETTY_NAMES: dict[str, str] = {
    name: f"{model.name} ({ENGINE_NAME})" for name, model in BY_ID.items()
}
