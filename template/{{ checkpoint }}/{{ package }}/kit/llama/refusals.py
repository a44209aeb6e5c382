"""What a step is refused for: ids and hidden states that a model can't take."""

from typing import Any

from numpy.typing import NDArray


def refuse_unknown(ids: NDArray[Any], vocabulary: int | None) -> None:
    """Raise ValueError where an id has no row in the embedding; a tokenizer may have more."""
    if vocabulary is not None and not 0 <= ids.min() <= ids.max() < vocabulary:
        wrong = ids.max() if ids.min() >= 0 else ids.min()
        raise ValueError(f"there is no token {wrong}: the model has {vocabulary}")


def refuse_width(states: NDArray[Any], size: int) -> None:
    """Raise ValueError for hidden states [..., D] of another size; one of 1 would be broadcast."""
    if states.shape[-1] != size:
        raise ValueError(
            f"hidden states of size {states.shape[-1]} came, and this model's layers take {size}: "
            "another node runs another model"
        )
