"""Where a runner's process begins."""

import traceback
from importlib import import_module
from typing import Any

from exo.records import BoundInstance


def entrypoint(
    bound_instance: BoundInstance,
    event_sender: Any,
    task_receiver: Any,
    cancel_receiver: Any,
    _logger: Any,
) -> None:
    """Build MLX's engine and run it; both imports are late, and a plugin stands in for them."""
    try:
        from exo.worker.engines.mlx.patches import apply_mlx_patches  # type: ignore[import-not-found] # MLX's

        apply_mlx_patches()
        from exo.worker.engines.mlx.builder import MlxBuilder  # type: ignore[import-not-found] # MLX's

        builder = MlxBuilder(
            model_id=bound_instance.bound_shard.model_card.model_id,
            event_sender=event_sender,
            cancel_receiver=cancel_receiver,
        )
        runner: Any = import_module("exo.worker.runner.runner")
        runner.Runner(bound_instance, builder, event_sender, task_receiver).main()
    except Exception as error:
        event_sender.send(("RunnerFailed", "", f"{error}\n{traceback.format_exc()}"))
        raise SystemExit(1) from error
