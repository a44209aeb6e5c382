"""exo's node (orchestration/node.py) and an engine: what it should say, and doesn't."""

import asyncio
from typing import Any

from ..node_state import AWAY, AnswerError, NodeState, later, state_of, why
from . import looks
from .looks import Function
from .output import outlive_the_reader
from .patch import patches


@patches(
    "exo.orchestration.node:Node.__init__",
    "by what name an exo without it would tell its engine is not known",
)
def know_the_node(original: Function, engine_class: Any) -> Function:
    """An engine hears of no answer's end, and not of the node's limits (node.py:30-60)."""

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        if isinstance(self.inference_engine, engine_class):
            engine: Any = self.inference_engine
            engine.state = NodeState(self, engine)
            outlive_the_reader()

    return __init__


@patches("exo.orchestration.node:Node.select_best_inference_engine", looks.swaps_engines)
def keep_the_engine(original: Function, engine_class: Any) -> Function:
    """When a peer joins or leaves, tinygrad takes a plugin's place (node.py:521-526)."""

    async def select_best_inference_engine(self: Any) -> None:
        if not isinstance(self.inference_engine, engine_class):
            await original(self)

    return select_best_inference_engine


@patches("exo.orchestration.node:Node._process_tensor", looks.drops_later_errors)
def raise_later_errors(original: Function, engine_class: Any) -> Function:
    """An engine's error after the first step is printed and dropped (node.py:385-388)."""

    async def _process_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any = None, inference_state: Any = None
    ) -> Any:
        state = state_of(self, engine_class)
        if state is None:
            return await original(self, base_shard, tensor, request_id, inference_state)
        if (end := state.ends.get(request_id)) is not None:  # a step that comes late
            if end.error is None or end.cancelled:
                return None
            raise end.error  # its sender may not have heard
        state.answer(request_id)
        work = _step(self, state, base_shard, tensor, request_id, inference_state)
        return await shielded(state, request_id, work)

    return _process_tensor


async def _step(
    node: Any, state: NodeState, base_shard: Any, tensor: Any, request_id: str, inference_state: Any
) -> Any:
    """exo's own lines (node.py:378-384), without what prints an error and drops it."""
    shard = node.get_current_shard(base_shard)
    node.outstanding_requests[request_id] = "processing"
    try:
        result, inference_state = await node.inference_engine.infer_tensor(
            request_id, shard, tensor, inference_state
        )
        return await node.process_inference_result(shard, result, request_id, inference_state)
    except Exception as error:
        node.outstanding_requests.pop(request_id, None)
        if state.error_of(request_id) is not None:  # it was ended meanwhile, and exo forgot it
            return None
        known = why(error)
        if getattr(error, "ends", True):
            await state.end(request_id, known)
        raise known from error  # to the node that sent it: this one may not know that node


async def shielded(state: NodeState, request_id: str, work: Any) -> Any:
    """Wait for a step; gRPC cancels it with the connection of the node that sent it.

    Then the answer ends in words on every node, as nobody would ask for its next step.
    """
    step = later(work)
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        step.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not step.done():
            later(state.end(request_id, AnswerError(AWAY, lost=True)))
        raise
