"""Which ids a model has: a tokenizer may have more than the embedding has rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .contract import Layers, RequestError
from .repository.facts import Facts
from .text.tokenizer import Tokenizer


def refuse_unknown(ids: NDArray[Any], vocabulary: int | None) -> None:
    """Raise RequestError where an id has no row; None: how many there are isn't known."""
    if vocabulary is None or not ids.size:
        return
    low, high = int(ids.min()), int(ids.max())
    if not 0 <= low <= high < vocabulary:
        wrong = high if low >= 0 else low
        raise RequestError(f"there is no token {wrong}: the model has {vocabulary}")


@dataclass(frozen=True)
class Vocabulary:
    """What the loaded layers take, before the device sees it.

    rows: of the embedding, as the model's files say. tokens: of the tokenizer, which counts for
    prompts where no file says it: a device may have rows beyond, and choose one. None of both where
    the layers take hidden states.
    """

    rows: int | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, layers: Layers, folder: Path | None, tokenizer: Tokenizer) -> "Vocabulary":
        """That of a model's folder and tokenizer. Raises RepositoryError."""
        if not layers.embeds:
            return cls()
        rows = Facts(folder or tokenizer.folder).vocabulary
        return cls(rows, None if rows else tokenizer.size)

    def refuse(self, x: NDArray[Any], is_prompt: bool) -> None:
        """Raise RequestError where x, ids (1, S), has one that there isn't."""
        refuse_unknown(x, self.rows or (self.tokens if is_prompt else None))
