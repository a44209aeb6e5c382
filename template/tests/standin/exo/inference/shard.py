"""A slice of a model's layers."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Shard:
    """Layers `start_layer` to `end_layer`, both included, of a model of `n_layers`."""

    model_id: str
    start_layer: int
    end_layer: int
    n_layers: int

    def is_first_layer(self) -> bool:
        """True where token ids come in."""
        return self.start_layer == 0

    def is_last_layer(self) -> bool:
        """True where logits, or ids, come out."""
        return self.end_layer == self.n_layers - 1

    def get_layer_count(self) -> int:
        """Return how many layers the slice has."""
        return 1 + self.end_layer - self.start_layer

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Shard":
        """Build a shard from what `to_dict` gave."""
        return Shard(**data)
