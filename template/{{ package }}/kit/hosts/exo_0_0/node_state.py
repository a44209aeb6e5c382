"""What one node of exo 0.0 knows of its answers, beyond what exo keeps.

A patch makes it with the node. Without patches there is none, and exo's own calls are all.
"""

import asyncio
import json
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ....names import PACKAGE
from ...contract import Messages

KEEP_SECONDS = 60.0  # of what exo never drops: its lists of an answer's ids
AWAY = f"{PACKAGE}: a node of the cluster went away. Send the request again"
MOST_ANSWERS = 4096  # that a node remembers, those that are over among them

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
class AnswerState:
    """One answer on one node.

    messages: the conversation, on the node that answers, until the prompt comes. from_command:
    `exo run` asks, whose prompt is one user message. cut: a limit of the device's or server's
    ended it. has_client: a client of this node's API waits for it.
    """

    messages: Messages | None = None
    from_command: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    cut: bool = False
    error: AnswerError | None = None
    has_client: bool = False

    def end(self, error: AnswerError | None = None) -> None:
        """It is over; the first reason stays."""
        self.error = self.error or (error and error.fresh())
        self.over, self.messages = True, None
        self.started.set()


class NodeState:
    """The answers of one node, and what its peers are told of them."""

    def __init__(self, node: Any, exo_engine: Any) -> None:
        self.node, self.exo_engine = node, exo_engine
        self.answers: OrderedDict[str, AnswerState] = OrderedDict()
        self.stopped: AnswerError | None = None  # why no answer begins any more
        self.lost: set[str] = set()  # nodes that can't be reached
        self.looking = asyncio.Lock()  # who is in the ring is worked out once at a time
        self.joining: dict[str, float] = {}  # nodes that wait for the answers in flight, and since
        self._changed = asyncio.Event()  # set when an answer is over, or its client has it
        exo_engine.engine.requests.watch(self._changed)
        NODE_STATES.add(self)
        node.on_token.register(PACKAGE).on_next(self.on_token)
        node.on_opaque_status.register(PACKAGE).on_next(self.on_status)

    def answer(self, request_id: str) -> AnswerState:
        """The record of an answer; a new one where there is none."""
        if request_id not in self.answers:
            self.answers[request_id] = AnswerState()
            while len(self.answers) > MOST_ANSWERS:
                self.answers.popitem(last=False)
        return self.answers[request_id]

    def error_of(self, request_id: str) -> AnswerError | None:
        """Why an answer is over, where it is and something ended it."""
        known = self.answers.get(request_id)
        return known.error if known else None

    def in_flight(self, with_waiting: bool = False) -> set[str]:
        """Answers that are not over, computed or passed on here; with those that have no token."""
        mine = {name for name, answer in self.answers.items() if not answer.over}
        if not with_waiting:
            mine = {name for name in mine if self.answers[name].started.is_set()}
        return mine | set(self.exo_engine.engine.requests)

    def clients(self) -> set[str]:
        """Answers that a client of this node's API waits for."""
        return {name for name, answer in self.answers.items() if answer.has_client}

    async def wait_until(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait for what the end of answers brings about, no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    def wake(self) -> None:
        """An answer is over, or its client has it: look again at what is waited for."""
        self._changed.set()

    def on_token(self, request_id: str, ids: Any, finished: bool) -> None:
        """Every node hears every token of every answer; no engine does."""
        answer = self.answer(request_id)
        answer.started.set()
        if finished:
            answer.end()
            self.exo_engine.engine.requests.finish(request_id)
            loop, node = asyncio.get_running_loop(), self.node
            loop.call_later(KEEP_SECONDS, node.buffered_token_output.pop, request_id, None)
            self.wake()

    def on_status(self, request_id: str, status: str) -> None:
        """What another node, or this one, says of an answer."""
        if PACKAGE not in status or (message := json.loads(status)).get("type") != PACKAGE:
            return
        answer = self.answer(request_id)
        if message.get("cut"):
            answer.cut = True
        elif "why" in message:
            lost, cancelled = bool(message.get("lost")), bool(message.get("cancelled"))
            error = AnswerError(str(message["why"]), lost, cancelled)
            self._end_here(request_id, answer, error)
        elif not answer.over:
            answer.messages = answer.messages or message.get("messages")
            answer.from_command = answer.messages is None

    def _end_here(self, request_id: str, answer: AnswerState, error: AnswerError) -> None:
        if answer.over:
            return
        answer.end(error)
        requests = self.exo_engine.engine.requests
        if not self._computes():  # a node that only passes an answer on counts none
            pass
        elif error.cancelled:
            requests.cancel(request_id)
        else:
            requests.fail(request_id, str(error), "cluster")
        self.wake()

    def _computes(self) -> bool:
        """Whether this node computes a part of the answers; of whole models the last one does."""
        return not self.exo_engine.engine.executor.whole_model or self.last_node() == self.node.id

    def last_node(self) -> str:
        """The node with the last layers."""
        node = self.node
        return str(node.partitioning_strategy.partition(node.topology)[-1].node_id)

    async def tell_cut(self, request_id: str) -> None:
        """Say on every node, before the last token, that exo's EOS stands for a server's limit."""
        self.answer(request_id).cut = True
        status = json.dumps({"type": PACKAGE, "cut": True})
        await self.node.broadcast_opaque_status(request_id, status)

    async def hand_over(self, request_id: str, messages: Messages | None) -> None:
        """Give a request's messages to the node that answers, before the prompt; None: `exo run`.

        Raises AnswerError where that node can't be reached: the prompt would be templated twice.
        """
        status, last = json.dumps({"type": PACKAGE, "messages": messages}), self.last_node()
        if last == self.node.id:
            self.on_status(request_id, status)
            return
        for peer in self.node.peers:
            if peer.id() == last:
                # Not broadcast_opaque_status(): that waits for every peer, for up to 15 s.
                await getattr(peer, "deliver_status", peer.send_opaque_status)(request_id, status)

    async def end(self, request_id: str, error: AnswerError) -> None:
        """End an answer on every node, at once; its client gets the sentence."""
        finished = self.node.buffered_token_output.get(request_id, ([], False))[1]
        answer = self.answer(request_id)
        if finished or answer.over:
            return
        self._end_here(request_id, answer, error)
        message = {"type": PACKAGE, "why": str(error)}
        status = json.dumps(message | {"lost": error.lost, "cancelled": error.cancelled})
        tokenizer = self.exo_engine.tokenizer
        # A node without this plugin shows the sentence's ids; none would be an IndexError there.
        ids = tokenizer.encode(f"\n[{error}]") if tokenizer else [0]
        self.node.outstanding_requests.pop(request_id, None)
        # Its own client first: a peer can be slow, and is told even where the caller is cancelled.
        self.node.trigger_on_token_callbacks(request_id, ids, True)
        await asyncio.shield(later(self._tell_peers(request_id, status, ids)))

    async def _tell_peers(self, request_id: str, status: str, ids: list[int]) -> None:
        """A peer hears why before the last token."""
        await self.node.broadcast_opaque_status(request_id, status)
        await self.node.broadcast_result(request_id, ids, True)


NODE_STATES: "weakref.WeakSet[NodeState]" = weakref.WeakSet()


def answer_of(request_id: str) -> AnswerState:
    """The record of an answer on any node of this process; an empty one where there is none."""
    known = [state.answers[request_id] for state in NODE_STATES if request_id in state.answers]
    return next((each for each in known if each.error or each.cut), AnswerState())


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


def later(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A task that lives until it is done; nobody has to wait for it."""
    _tasks.add(task := asyncio.create_task(work))
    task.add_done_callback(_tasks.discard)
    return task


_tasks: set["asyncio.Task[Any]"] = set()
