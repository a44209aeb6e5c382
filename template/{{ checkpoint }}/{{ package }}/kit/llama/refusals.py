"""What a step is refused for: hidden states that a model can't take. Ids are in kit/ids.py."""

from typing import Any

from numpy.typing import NDArray


def refuse_width(states: NDArray[Any], size: int) -> None:
    """Raise ValueError for hidden states [..., D] of another size; one of 1 would be broadcast."""
    if states.shape[-1] != size:
        raise ValueError(
            f"hidden states of size {states.shape[-1]} came, and this model's layers take {size}: "
            "another node runs another model"
        )
