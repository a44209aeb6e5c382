"""exo's node (orchestration/node.py) and an engine: what it should tell, and doesn't."""

import asyncio
import contextlib
import io
import json
import logging
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from .....names import ENGINE_NAME, PACKAGE
from .patch import Function, patches, run_now

KEPT_SECONDS = 60.0  # of what exo never drops: its lists of an answer's ids
AWAY = f"{PACKAGE}: a node of the cluster went away. Send the request again"
_MOST_KEPT = 4096

T = TypeVar("T")

_log = logging.getLogger(__name__)


class AnswerError(RuntimeError):
    """Why an answer ended; the text is for exo's user.

    lost: a node of the cluster is gone. cancelled: nobody reads the answer any more.
    """

    def __init__(self, sentence: str, lost: bool = False, cancelled: bool = False) -> None:
        super().__init__(sentence)
        self.lost, self.cancelled = lost, cancelled

    def fresh(self) -> "AnswerError":
        """One to raise, or to keep: a raised one keeps all that its callers had."""
        return AnswerError(str(self), self.lost, self.cancelled)


@dataclass
class Asked:
    """An answer that a client of this node's API waits for."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class NodeState:
    """What one node knows of its answers beyond what exo keeps."""

    def __init__(self, node: Any, exo_engine: Any) -> None:
        self.node, self.exo_engine = node, exo_engine
        self.errors: OrderedDict[str, AnswerError] = OrderedDict()  # why answers are over
        self.cut: OrderedDict[str, None] = OrderedDict()  # answers that a server's limit ended
        self.asked: dict[str, Asked] = {}
        self.lost: set[str] = set()  # nodes that can't be reached
        self.looking = asyncio.Lock()  # who is in the ring is worked out once at a time
        self.joining: dict[str, float] = {}  # nodes that wait for the answers in flight, and since
        self._telling: set[asyncio.Future[None]] = set()
        NODE_STATES.add(self)
        node.on_token.register(PACKAGE).on_next(self.hear_token)
        node.on_opaque_status.register(PACKAGE).on_next(self.hear_status)

    def hear_token(self, request_id: str, ids: Any, finished: bool) -> None:
        """Every node hears every token of every answer; no engine does."""
        if asked := self.asked.get(request_id):
            asked.began.set()
            asked.over = finished
        if finished:
            self.exo_engine.engine.requests.finish(request_id)
            buffered = self.node.buffered_token_output
            asyncio.get_running_loop().call_later(KEPT_SECONDS, buffered.pop, request_id, None)

    def hear_status(self, request_id: str, status: str) -> None:
        """Another node's word that an answer is over."""
        if PACKAGE not in status:
            return
        told = json.loads(status)
        if told.get("cut"):
            keep(self.cut, request_id, None)
        elif told.get("type") == PACKAGE and request_id not in self.errors:
            error = AnswerError(str(told["why"]), bool(told["lost"]), bool(told["cancelled"]))
            self.remember(request_id, error)
            if error.cancelled:
                self.exo_engine.engine.requests.cancel(request_id)
            else:
                self.exo_engine.engine.requests.fail(request_id, str(error), "cluster")

    def remember(self, request_id: str, error: AnswerError) -> None:
        """Keep why an answer is over, for its client and for steps that come late."""
        keep(self.errors, request_id, error.fresh())

    async def tell_cut(self, request_id: str) -> None:
        """Say on every node, before the last token, that exo's EOS stands for a server's limit."""
        keep(self.cut, request_id, None)
        told = json.dumps({"type": PACKAGE, "cut": True})
        await self.node.broadcast_opaque_status(request_id, told)

    async def end(self, request_id: str, error: AnswerError) -> None:
        """End an answer on every node, at once; its client gets the sentence."""
        finished = self.node.buffered_token_output.get(request_id, ([], False))[1]
        if finished or request_id in self.errors:
            return
        told: dict[str, Any] = {"type": PACKAGE, "why": str(error)}
        told |= {"lost": error.lost, "cancelled": error.cancelled}
        self.hear_status(request_id, json.dumps(told))
        tokenizer = self.exo_engine.tokenizer
        # A node without this plugin shows the sentence's ids; none would be an IndexError there.
        ids = tokenizer.encode(f"\n[{error}]") if tokenizer else [0]
        self.node.outstanding_requests.pop(request_id, None)
        # Its own client first: a peer can be slow, and is told even where the caller is cancelled.
        self.node.trigger_on_token_callbacks(request_id, ids, True)
        telling = asyncio.ensure_future(self._tell_peers(request_id, json.dumps(told), ids))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.shield(telling)

    async def _tell_peers(self, request_id: str, told: str, ids: list[int]) -> None:
        """A peer hears why before the last token."""
        await self.node.broadcast_opaque_status(request_id, told)
        await self.node.broadcast_result(request_id, ids, True)


def keep(kept: OrderedDict[str, T], request_id: str, value: T) -> None:
    """Keep something of a request, for the last few thousand of them."""
    kept[request_id] = value
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)


NODE_STATES: "weakref.WeakSet[NodeState]" = weakref.WeakSet()


def error_of(request_id: str) -> AnswerError | None:
    """Why an answer is over, on any node of this process."""
    return next(
        (state.errors[request_id] for state in NODE_STATES if request_id in state.errors), None
    )


def was_cut(request_id: str) -> bool:
    """Whether a server's limit ended an answer."""
    return any(request_id in state.cut for state in NODE_STATES)


def state_of(node: Any, engine_class: type) -> NodeState | None:
    """The state of a node whose engine is this plugin's."""
    engine = getattr(node, "inference_engine", None)
    return getattr(engine, "state", None) if isinstance(engine, engine_class) else None


def why(error: BaseException) -> AnswerError:
    """An error of exo's or gRPC's in this plugin's words."""
    if isinstance(error, AnswerError):
        return error
    details = str(error.details()) if hasattr(error, "details") else str(error)
    _, mark, sentence = details.rpartition(f"{PACKAGE}: ")
    if mark:
        return AnswerError(f"{PACKAGE}: {sentence}")
    if isinstance(error, (KeyError, TypeError, IndexError, AttributeError)):
        _log.error("exo failed in a step: %r", error)
        return AnswerError(f"{PACKAGE}: exo failed in a step: {error!r}. See this node's log")
    return AnswerError(AWAY, lost=True)


def fit(state: NodeState, theirs: Any) -> None:
    """Refuse what was sent for other layers than this node believes to have.

    Who joins, leaves or restarts sees another ring than the others for some seconds; an input can
    fit all the same, and the answer would be wrong. Raises AnswerError.
    """
    mine = state.node.get_current_shard(theirs)
    here, there = ((s.start_layer, s.end_layer) for s in (mine, theirs))
    if here != there and not state.exo_engine.engine.executor.whole_model:
        raise AnswerError(
            f"{PACKAGE}: node {state.node.id} has layers {here[0]} to {here[1]}, but was asked for "
            f"{there[0]} to {there[1]}: the cluster has just changed. Send the request again",
            lost=True,
        )


@patches("exo.orchestration.node:Node.__init__")
def know_the_node(original: Function, engine_class: type) -> Function:
    """An engine hears of no answer's end, and not of the node's limits (node.py:30-60)."""

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        if isinstance(self.inference_engine, engine_class):
            engine: Any = self.inference_engine
            engine.state = NodeState(self, engine)

    return __init__


def _swaps(original: Function, module: ModuleType) -> bool:
    """Whether a plugin's engine is gone after the cluster has changed."""
    asked: list[str] = []

    async def broadcast(_: Any) -> None:
        pass

    node: Any = SimpleNamespace(
        inference_engine=SimpleNamespace(),
        shard_downloader=None,
        broadcast_supported_engines=broadcast,
    )
    names = module.Node.get_supported_inference_engines
    node.get_supported_inference_engines = lambda: names(node)
    node.get_topology_inference_engines = lambda: [["any"]]
    loader = module.get_inference_engine
    setattr(module, "get_inference_engine", lambda name, _: asked.append(name))  # noqa: B010 - typed
    try:
        run_now(original(node))
    finally:
        setattr(module, "get_inference_engine", loader)  # noqa: B010 - a module has no such type
    return bool(asked) and asked != [ENGINE_NAME]


@patches("exo.orchestration.node:Node.select_best_inference_engine", _swaps)
def keep_the_engine(original: Function, engine_class: type) -> Function:
    """When a peer joins or leaves, tinygrad takes a plugin's place (node.py:521-526)."""

    async def select_best_inference_engine(self: Any) -> None:
        if not isinstance(self.inference_engine, engine_class):
            await original(self)

    return select_best_inference_engine


def _swallows(original: Function, _: ModuleType) -> bool:
    """Whether an engine's error at a later step is dropped."""
    ended: list[Any] = []

    async def fails(*_: Any) -> Any:
        raise RuntimeError("looking whether exo drops errors")

    async def broadcast(*told: Any) -> None:
        ended.append(told)

    node = SimpleNamespace(
        inference_engine=SimpleNamespace(infer_tensor=fails),
        outstanding_requests={},
        buffered_token_output={},
        get_current_shard=lambda shard: shard,
        trigger_on_token_callbacks=lambda *told: ended.append(told),
        broadcast_result=broadcast,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            run_now(original(node, None, np.zeros((1, 1)), "request"))
        except RuntimeError:
            return False
    return not ended


@patches("exo.orchestration.node:Node._process_tensor", _swallows)
def raise_later_errors(original: Function, engine_class: type) -> Function:
    """An engine's error after the first step is printed and dropped (node.py:385-388)."""

    async def _process_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any = None, inference_state: Any = None
    ) -> Any:
        state = state_of(self, engine_class)
        if state is None:
            return await original(self, base_shard, tensor, request_id, inference_state)
        if (known := state.errors.get(request_id)) is not None:  # a step that comes late
            if known.cancelled:
                return None
            raise known.fresh()  # its sender may not have heard
        # exo's own lines, without what prints the error and drops it.
        shard = self.get_current_shard(base_shard)
        self.outstanding_requests[request_id] = "processing"
        try:
            result, inference_state = await self.inference_engine.infer_tensor(
                request_id, shard, tensor, inference_state
            )
            return await self.process_inference_result(shard, result, request_id, inference_state)
        except Exception as error:
            self.outstanding_requests.pop(request_id, None)
            if request_id in state.errors:  # it was ended meanwhile, and exo forgot it
                return None
            known = why(error)
            if getattr(error, "ends", True):
                await state.end(request_id, known)
            raise known from error  # to the node that sent it: this one may not know that node

    return _process_tensor


@patches("exo.orchestration.node:Node.process_tensor")
def refuse_other_layers(original: Function, engine_class: type) -> Function:
    """A node takes a step for layers that it doesn't have, while the cluster changes."""

    async def process_tensor(self: Any, base_shard: Any, *rest: Any, **named: Any) -> Any:
        if state := state_of(self, engine_class):
            fit(state, base_shard)
        return await original(self, base_shard, *rest, **named)

    return process_tensor
