"""The models that a plugin offers, and the cards that exo 0.0 reads of them.

exo 0.0 loads this in the middle of `import exo.models`: neither this module nor any package above
it imports exo, or anything heavy.
"""

from typing import Any, NamedTuple

from ..names import ENGINE_CLASS, ENGINE_NAME

# exo would replace a card of its own that has the same id.
_SUFFIX = f"-{ENGINE_NAME.replace('_', '-')}"


class Model(NamedTuple):
    """A model that the plugin offers.

    repository: where its tokenizer is, and the files that the backend asks for ("owner/name" of
    the Hugging Face hub). layers: how many the model has.
    """

    id: str
    name: str
    repository: str
    layers: int


class Cards(dict[str, dict[str, Any]]):
    """Cards by the ids that exo 0.0 knows; a dict, as it drops anything else without a word.

    Each is {"layers": int, "repo": {engine class: repository}} (exo/models.py, commit 0c831d3).
    table: the models as they were given. by_id: the same by exo's ids.
    """

    def __init__(self, table: tuple[Model, ...]) -> None:
        self.table = table
        self.by_id = {exo_id(model.id): model for model in table}
        super().__init__(
            (name, {"layers": model.layers, "repo": {ENGINE_CLASS: model.repository}})
            for name, model in self.by_id.items()
        )

    @property
    def pretty_names(self) -> dict[str, str]:
        """What exo's pages call the models; it has no entry point for that."""
        return {name: f"{model.name} ({ENGINE_NAME})" for name, model in self.by_id.items()}


def cards(*models: Model) -> Cards:
    """The cards of these models."""
    return Cards(models)


def exo_id(model_id: str) -> str:
    """A model's id in exo: with the engine's name behind it."""
    return model_id if model_id.endswith(_SUFFIX) else model_id + _SUFFIX
