"""Values of config.json, each of the kind that it has to be."""

from dataclasses import dataclass
from typing import Any

from ..repository.facts import RepositoryError

# Far above every published model; a larger size would cost memory before a weight is read.
_LARGEST = {
    "num_hidden_layers": 1 << 12,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 24,
}
_MISSING = object()


@dataclass(frozen=True)
class Reader:
    """Values of the kind asked for; null is a key that is not there."""

    content: dict[str, Any]

    def get(self, key: str, default: Any = _MISSING) -> Any:
        value = self.content.get(key)
        if value is None:
            value = default
        if value is _MISSING:
            raise RepositoryError(f"{key} is missing")
        return value

    def count(self, key: str, default: Any = _MISSING, least: int = 1) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RepositoryError(
                f"{key} is {value!r}; it should be a whole number from {least} on"
            )
        most = _LARGEST.get(key)
        if most is not None and value > most:
            raise RepositoryError(f"{key} is {value}; no model has more than {most}")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        value = self.get(key, default)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not 0 < value < 1e300:  # an int may be too large for a float
            raise RepositoryError(f"{key} is {value!r}; it should be a number above zero")
        return float(value)

    def flag(self, key: str, usual: bool = False) -> bool:
        value = self.get(key, usual)
        if not isinstance(value, bool):
            raise RepositoryError(f"{key} is {value!r}; it should be true or false")
        return value
