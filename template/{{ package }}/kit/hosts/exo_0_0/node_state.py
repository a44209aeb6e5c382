"""What one node of exo 0.0 knows of its answers, beyond what exo keeps.

A patch makes it with the node. Without patches there is none, and exo's own calls are all.
"""

import asyncio
import json
import logging
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ....names import PACKAGE
from ...contract import Messages
from ...text.tokenizer import TokenizerError

KEEP_SECONDS = 60.0  # of what exo never drops: what it notes of an answer
AGAIN = "Send the request again"  # at the end of each sentence that a lost node brings about
AWAY = f"{PACKAGE}: a node of the cluster went away. {AGAIN}"
MOST = 4096  # answers that a node remembers, in flight and ended

T = TypeVar("T")

_log = logging.getLogger(__name__)


class AnswerError(RuntimeError):
    """Why an answer ended; the text is for exo's user.

    lost: a node of the cluster is gone. cancelled: nobody reads the answer any more.
    """

    def __init__(self, sentence: str, lost: bool = False, cancelled: bool = False) -> None:
        super().__init__(sentence)
        self.lost, self.cancelled = lost, cancelled


class End(NamedTuple):
    """How an answer ended; sentence: of the error that ended it, if one did.

    cut: a limit of the device's or server's ended it, which exo knows nothing of.
    """

    sentence: str = ""
    lost: bool = False
    cancelled: bool = False
    cut: bool = False

    @property
    def error(self) -> AnswerError | None:
        """A new one each time: a raised one keeps all that its callers had."""
        return AnswerError(*self[:3]) if self.sentence else None


@dataclass
class AnswerState:
    """One answer in flight on one node.

    messages: the conversation, on the node that answers, until the prompt comes. from_command:
    `exo run` asks, whose prompt is one user message.
    """

    messages: Messages | None = None
    from_command: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False


class NodeState:
    """The answers of one node, and what its peers are told of them."""

    def __init__(self, node: Any, exo_engine: Any) -> None:
        self.node, self.exo_engine = node, exo_engine
        self.answers: OrderedDict[str, AnswerState] = OrderedDict()
        self.ends: OrderedDict[str, End] = OrderedDict()
        self.clients: set[str] = set()  # answers that a client of this node's API waits for
        self.stopped: AnswerError | None = None  # why no answer begins any more
        self.lost: dict[str, set[str]] = {}  # nodes that can't be reached: answers ended without
        self.cut_off: deque[tuple[float, str]] = deque(maxlen=64)  # by a loss: time.monotonic(), id
        self.looking = asyncio.Lock()  # who is in the ring is worked out once at a time
        self.joining: dict[str, float] = {}  # nodes that wait for the answers in flight, and since
        self._changed = asyncio.Event()  # set when an answer is over, or its client has it
        exo_engine.engine.requests.watch(self._changed)
        NODE_STATES.add(self)
        node.on_token.register(PACKAGE).on_next(self.on_token)
        node.on_opaque_status.register(PACKAGE).on_next(self.on_status)

    def answer(self, request_id: str) -> AnswerState:
        """The record of an answer in flight, which begins with it."""
        if request_id not in self.answers:
            _keep(self.answers, request_id, AnswerState())
        return self.answers[request_id]

    def error_of(self, request_id: str) -> AnswerError | None:
        """What ended an answer, where it is over and something did."""
        end = self.ends.get(request_id)
        return end.error if end else None

    def in_flight(self, with_waiting: bool = False) -> set[str]:
        """Answers that are computed or passed on here; with those that have no token yet."""
        mine = {name for name, a in self.answers.items() if with_waiting or a.started.is_set()}
        return mine | set(self.exo_engine.engine.requests)

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
        if answer := self.answers.get(request_id):
            answer.started.set()
        if finished:
            self.remember(request_id, End(cut=bool(answer and answer.cut)))
            self.exo_engine.engine.requests.finish(request_id)
            loop, node = asyncio.get_running_loop(), self.node
            for records in (node.buffered_token_output, node.outstanding_requests):
                loop.call_later(KEEP_SECONDS, records.pop, request_id, None)

    def on_status(self, request_id: str, status: str) -> None:
        """What another node, or this one, says of an answer."""
        if PACKAGE not in status or (message := json.loads(status)).get("type") != PACKAGE:
            return
        if request_id in self.ends:
            return
        answer = self.answer(request_id)
        if message.get("cut"):
            answer.cut = True
        elif "why" in message:
            lost, cancelled = bool(message.get("lost")), bool(message.get("cancelled"))
            self._end_here(request_id, End(str(message["why"]), lost, cancelled))
        else:
            answer.messages = answer.messages or message.get("messages")
            answer.from_command = answer.messages is None

    def remember(self, request_id: str, end: End) -> None:
        """An answer is over, for its client and for steps that come late; the first end counts."""
        if answer := self.answers.pop(request_id, None):
            answer.started.set()
        if request_id not in self.ends:
            _keep(self.ends, request_id, end)
        self.wake()

    def _end_here(self, request_id: str, end: End) -> None:
        """Its client gets the sentence now: who ended it may be gone before it sends last ids."""
        self.remember(request_id, end)
        requests = self.exo_engine.engine.requests
        if self._computes():  # a node that only passes an answer on counts none
            if end.cancelled:
                requests.cancel(request_id)
            else:
                requests.fail(request_id, end.sentence, "cluster")
        self.node.trigger_on_token_callbacks(request_id, self._last_ids(end), True)

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
        if finished or request_id in self.ends:
            return
        end = End(str(error), error.lost, error.cancelled)
        if end.lost:
            self.cut_off.append((time.monotonic(), request_id))
        # Its own client first: a peer can be slow, and is told even where the caller is cancelled.
        self._end_here(request_id, end)
        self.node.outstanding_requests.pop(request_id, None)
        await asyncio.shield(later(self._tell_peers(request_id, end)))

    def _last_ids(self, end: End) -> list[int]:
        """The ids with which an answer ends."""
        tokenizer, ids = self.exo_engine.tokenizer, [0]
        # A node without this plugin shows the sentence's ids; none would be an IndexError there.
        if tokenizer is not None:
            with suppress(TokenizerError):  # an end has to be told whatever the model's can't do
                ids = tokenizer.encode(f"\n[{end.sentence}]") or ids
        return ids

    async def tell_ends(self, peer: Any, request_ids: set[str]) -> None:
        """Say to a node that is back which answers ended without it: it still holds their state."""
        for request_id in request_ids & self.ends.keys():
            if not (end := self.ends[request_id]).sentence:  # it was whole
                continue
            with suppress(Exception):  # it is gone again
                await peer.send_opaque_status(request_id, _status(end))
                await peer.send_result(request_id, self._last_ids(end), True)

    async def _tell_peers(self, request_id: str, end: End) -> None:
        """Why, then the last ids: a node without this plugin knows the end by these alone."""
        await self.node.broadcast_opaque_status(request_id, _status(end))
        await self.node.broadcast_result(request_id, self._last_ids(end), True)


NODE_STATES: "weakref.WeakSet[NodeState]" = weakref.WeakSet()


def end_of(request_id: str) -> End:
    """How an answer ended on any node of this process; plainly where nothing else is known."""
    ends = [state.ends[request_id] for state in NODE_STATES if request_id in state.ends]
    return next((end for end in ends if end.sentence or end.cut), End())


def _status(end: End) -> str:
    """Why an answer is over, for other nodes."""
    message = {"type": PACKAGE, "why": end.sentence, "lost": end.lost}
    return json.dumps(message | {"cancelled": end.cancelled})


def _keep(records: OrderedDict[str, T], request_id: str, record: T) -> None:
    """Keep a record, of the last few thousand."""
    records[request_id] = record
    while len(records) > MOST:
        records.popitem(last=False)


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
    if mark:  # gRPC has an error's text alone
        return AnswerError(f"{PACKAGE}: {sentence}", lost=AGAIN in sentence)
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
