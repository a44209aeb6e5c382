"""What exo's node gets wrong for plugins, mended from here."""

import functools
from typing import Any


def mend(node_class: Any, engine_class: type) -> None:
    """Once for a class."""
    if getattr(node_class, "mended_by_steps", False):
        return
    node_class.mended_by_steps = True
    keep_engine(node_class, engine_class)
    hear_ends(node_class, engine_class)
    end_failed(node_class, engine_class)
    end_cut(node_class, engine_class)
    end_orphans(node_class, engine_class)


async def end(node: Any, request_id: str) -> None:
    if not node.buffered_token_output.get(request_id, ([], False))[1]:
        node.trigger_on_token_callbacks(request_id, [], True)
        await node.broadcast_result(request_id, [], True)


def keep_engine(node_class: Any, engine_class: type) -> None:
    original = node_class.select_best_inference_engine

    async def select_best_inference_engine(self: Any) -> None:
        if not isinstance(self.inference_engine, engine_class):
            await original(self)

    node_class.select_best_inference_engine = select_best_inference_engine


def hear_ends(node_class: Any, engine_class: Any) -> None:
    original = node_class.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

        def hear(request_id: str, _: Any, finished: bool) -> None:
            if finished and isinstance(self.inference_engine, engine_class):
                self.inference_engine.forget(request_id)

        self.on_token.register("exo_steps").on_next(hear)

    node_class.__init__ = __init__


def end_failed(node_class: Any, engine_class: Any) -> None:
    original = node_class._process_tensor

    async def _process_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any = None, *rest: Any
    ) -> Any:
        result = await original(self, base, tensor, request_id, *rest)
        engine = self.inference_engine
        if isinstance(engine, engine_class) and request_id in engine.failed:
            engine.failed.discard(request_id)
            await end(self, request_id)
        return result

    node_class._process_tensor = _process_tensor


def end_cut(node_class: Any, engine_class: Any) -> None:
    original = node_class.forward_tensor

    async def forward_tensor(
        self: Any, base: Any, tensor: Any, request_id: Any, *rest: Any
    ) -> None:
        try:
            await original(self, base, tensor, request_id, *rest)
        except Exception:
            await end(self, request_id)

    node_class.forward_tensor = forward_tensor


def end_orphans(node_class: Any, engine_class: Any) -> None:
    original = node_class.update_peers

    async def update_peers(self: Any, *args: Any, **kwargs: Any) -> bool:
        changed = bool(await original(self, *args, **kwargs))
        if changed and isinstance(self.inference_engine, engine_class):
            for request_id in list(self.inference_engine.requests):
                self.inference_engine.forget(request_id)
                await end(self, request_id)
        return changed

    node_class.update_peers = update_peers
