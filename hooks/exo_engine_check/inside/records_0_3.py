"""Records of exo 0.3, the real one and the stand-in: how they are made, and how read."""

import importlib
from typing import Any


def load(name: str) -> Any:
    """A module of exo's."""
    return importlib.import_module(name)


def card_of(values: dict[str, Any]) -> Any:
    """exo's ModelCard. Raises whatever exo raises."""
    cards, memory = load("exo.shared.models.model_cards"), load("exo.shared.types.memory").Memory
    if hasattr(cards.ModelCard, "model_validate"):
        return cards.ModelCard.model_validate(values)
    model_id = load("exo.shared.types.common").ModelId(values["model_id"])
    size = memory(**values["storage_size"])
    return cards.ModelCard(**values | {"model_id": model_id, "storage_size": size})


def bound(card: Any) -> tuple[Any, Any]:
    """exo's BoundInstance of a whole model, and its instance."""
    types = load("exo.shared.types.worker.instances")
    layers = {"start_layer": 0, "end_layer": card.n_layers, "n_layers": card.n_layers}
    shard = load("exo.shared.types.worker.shards").PipelineShardMetadata(
        model_card=card, device_rank=0, world_size=1, **layers
    )
    if not hasattr(types, "MlxRingInstance"):
        whole = types.BoundInstance(bound_shard=shard)
        return whole, whole
    runners = load("exo.shared.types.worker.runners")
    node, runner = load("exo.shared.types.common").NodeId(), runners.RunnerId()
    assignments = runners.ShardAssignments(
        model_id=card.model_id, runner_to_shard={runner: shard}, node_to_runner={node: runner}
    )
    instance = types.MlxRingInstance(
        instance_id=types.InstanceId(),
        shard_assignments=assignments,
        hosts_by_node={},
        ephemeral_port=1,
    )
    whole = types.BoundInstance(instance=instance, bound_runner_id=runner, bound_node_id=node)
    return whole, instance


def plain(event: Any) -> tuple[str, str, Any]:
    """An event of a runner's as its kind, its request and what it brings."""
    if isinstance(event, tuple):
        kind, task, value = event
        return str(kind), str(task), value
    kind = type(event).__name__
    if kind == "RunnerStatusUpdated":
        return type(event.runner_status).__name__, "", event.runner_status
    if kind == "ChunkGenerated":
        return type(event.chunk).__name__, str(event.command_id), event.chunk
    if kind == "TaskStatusUpdated" and event.task_status.value == "Complete":
        return "FinishedResponse", str(event.task_id), None
    if kind == "RunnerTerminationError":
        return "RunnerFailed", "", str(event)
    return kind, "", None
