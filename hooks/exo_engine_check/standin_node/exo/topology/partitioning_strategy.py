"""Who has which layers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from exo.inference.shard import Shard


@dataclass
class Partition:
    """A node's part of a model, as fractions of its layers."""

    node_id: str
    start: float
    end: float


class PartitioningStrategy(ABC):
    """Splits a model over the nodes of a topology."""

    @abstractmethod
    def partition(self, topology: Any) -> list[Partition]:
        """Return one partition a node, in order of layers."""


def map_partitions_to_shards(
    partitions: list[Partition], num_layers: int, model_id: str
) -> list[Shard]:
    """Turn fractions into layers; the last node takes what is left."""
    ends = [int(part.end * num_layers) - 1 for part in partitions]
    ends[-1] = num_layers - 1
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [
        Shard(model_id, start, end, num_layers) for start, end in zip(starts, ends, strict=True)
    ]
