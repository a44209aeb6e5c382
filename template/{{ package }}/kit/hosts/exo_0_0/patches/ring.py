"""exo's ring of nodes: who joins waits, who is lost goes at once, and answers in flight end."""

import asyncio
import logging
import time
from typing import Any

from .....names import PACKAGE
from .... import settings
from .node import AWAY, AnswerError, NodeState, state_of, why
from .patch import Function, patches
from .peer import Link, reached

WAIT_SECONDS = 30.0  # how long a node that joins waits for the answers in flight

CHANGED = f"{PACKAGE}: a node joined or left the cluster. Send the request again"

_log = logging.getLogger(__name__)
_tasks: set["asyncio.Task[None]"] = set()


class Ring:
    """In place of exo's discovery while it asks: leaves out who is lost, or has to wait."""

    def __init__(self, state: NodeState, discovery: Any) -> None:
        self._state, self._discovery = state, discovery
        self._wait = settings.seconds("JOIN_SECONDS", WAIT_SECONDS)

    async def discover_peers(self, wait_for_peers: int = 0) -> list[Any]:
        """The peers that exo may use now."""
        found = await self._discovery.discover_peers(wait_for_peers)
        return [self._link(peer) for peer in found if await self._usable(peer)]

    def _link(self, peer: Any) -> Link:
        """The same for the same peer: a call in flight has to end with it."""
        for known in self._state.node.peers:
            if isinstance(known, Link) and known.peer is peer and not known.gone.done():
                return known
        return Link(peer, lambda link: _later(lose(self._state, link)))

    async def _usable(self, peer: Any) -> bool:
        state, name = self._state, peer.id()
        if name in state.lost:
            if not await reached(peer):
                return False
            state.lost.discard(name)
            _log.warning("node %s is back", name)
        if any(name == known.id() for known in state.node.peers):
            state.joining.pop(name, None)
            return True
        since = state.joining.setdefault(name, time.monotonic())
        waits = bool(state.exo_engine.engine.requests) and time.monotonic() - since < self._wait
        if not waits:
            state.joining.pop(name, None)
        return not waits


def _later(work: Any) -> None:
    _tasks.add(task := asyncio.ensure_future(work))
    task.add_done_callback(_tasks.discard)


async def hold(state: NodeState) -> None:
    """A new answer begins after who joins now, who would never find the ring without answers."""
    if state.joining:
        await state.exo_engine.engine.requests.empty(settings.seconds("JOIN_SECONDS", WAIT_SECONDS))
        await state.node.update_peers()
        await state.node.collect_topology(set())


async def lost(state: NodeState, index: int) -> None:
    """The node with these layers could not be reached."""
    partitions = state.node.partitioning_strategy.partition(state.node.topology)
    name = partitions[index].node_id if index < len(partitions) else ""
    for peer in state.node.peers:
        if peer.id() == name:
            await lose(state, peer)
            return


async def lose(state: NodeState, peer: Any) -> None:
    """Take a node out of the ring at once, if it can't be reached; exo takes 16 s."""
    node, name = state.node, peer.id()
    if name in state.lost or await reached(peer) or name in state.lost or peer not in node.peers:
        return
    state.lost.add(name)
    if isinstance(peer, Link):
        peer.lose()
    _log.error(
        "node %s can't be reached: it is left out until it answers again. If it should be there, "
        "look at its log and start it anew",
        name,
    )
    async with state.looking:
        node.peers = [other for other in node.peers if other is not peer]
    await node.collect_topology(set())
    await _end_all(state, AWAY, set(state.asked))


async def _end_all(state: NodeState, sentence: str, others: set[str]) -> None:
    """End the answers that the nodes of the ring before can't go on with."""
    if state.exo_engine.engine.executor.whole_model:
        return
    for request_id in {*state.exo_engine.engine.requests, *others}:
        await state.end(request_id, AnswerError(sentence, lost=True))


@patches("exo.orchestration.node:Node.update_peers")
def end_orphans(original: Function, engine_class: type) -> Function:
    """Who joins or leaves changes everybody's layers, and answers in flight wait for ever."""

    async def update_peers(self: Any, *args: Any, **named: Any) -> bool:
        state = state_of(self, engine_class)
        if state is None:
            return bool(await original(self, *args, **named))
        async with state.looking:
            real, self.discovery = self.discovery, Ring(state, self.discovery)
            try:
                changed = bool(await original(self, *args, **named))
            finally:
                self.discovery = real
        if changed:
            begun = {name for name, asked in state.asked.items() if asked.began.is_set()}
            await _end_all(state, CHANGED, begun)
        return changed

    return update_peers


@patches("exo.orchestration.node:Node.collect_topology")
def one_look_at_a_time(original: Function, engine_class: type) -> Function:
    """An older picture of the ring can replace a newer one, with a node that is gone."""

    async def collect_topology(self: Any, *args: Any, **named: Any) -> Any:
        state = state_of(self, engine_class)
        if state is None:
            return await original(self, *args, **named)
        async with state.looking:
            return await original(self, *args, **named)

    return collect_topology


@patches("exo.orchestration.node:Node.forward_tensor")
def end_cut_answers(original: Function, engine_class: type) -> Function:
    """An error on the way to the next node is dropped with its task (node.py:152)."""

    async def forward_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any, target_index: int, *rest: Any
    ) -> None:
        try:
            await original(self, base_shard, tensor, request_id, target_index, *rest)
        except Exception as error:
            state = state_of(self, engine_class)
            if state is None:
                raise
            known = why(error)
            await state.end(request_id, known)
            if known.lost:
                await lost(state, target_index)

    return forward_tensor
