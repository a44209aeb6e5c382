"""One model of a plugin's table."""

from typing import NamedTuple


class Model(NamedTuple):
    """A model that the plugin offers.

    repository: where its tokenizer is, and the files that the backend asks for ("owner/name" of
    the Hugging Face hub). layers: how many the model has.
    """

    id: str
    name: str
    repository: str
    layers: int
