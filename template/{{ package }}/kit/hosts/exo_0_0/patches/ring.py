"""exo's ring of nodes: who joins waits, who is lost goes at once, and answers in flight end.

Whole models are no exception: each token goes once around the ring, whoever computes it.
"""

import asyncio
import logging
import time
from typing import Any

from .....names import PACKAGE
from .... import settings
from ..node_state import AGAIN, AWAY, AnswerError, NodeState, later, state_of, why
from . import looks
from .looks import Function
from .patch import patches
from .peer import Link, reached

NOTICE_SECONDS = 10.0  # what a node did not hear before it was found to be away
WAIT_SECONDS = 30.0  # how long a node that joins waits for the answers in flight

CHANGED = f"{PACKAGE}: a node joined or left the cluster. {AGAIN}"

_log = logging.getLogger(__name__)


class Ring:
    """In place of exo's discovery while it looks: leaves out who is lost, or has to wait."""

    def __init__(self, state: NodeState, discovery: Any) -> None:
        self._state, self._discovery = state, discovery
        self._seconds = settings.seconds("JOIN_SECONDS", WAIT_SECONDS)

    async def discover_peers(self, wait_for_peers: int = 0) -> list[Any]:
        """The peers that exo may use now."""
        peers = await self._discovery.discover_peers(wait_for_peers)
        return [self._link(peer) for peer in peers if await self._usable(peer)]

    def _link(self, peer: Any) -> Link:
        """The same for the same peer: a call in flight has to end with it."""
        for known in self._state.node.peers:
            if isinstance(known, Link) and known.peer is peer and not known.gone.done():
                return known
        return Link(peer, lambda link, sure: later(lose(self._state, link, sure)))

    async def _usable(self, peer: Any) -> bool:
        state, name = self._state, peer.id()
        if name in state.lost:
            if not await reached(peer):
                return False
            _log.warning("node %s is back", name)
            later(state.tell_ends(peer, state.lost.pop(name, set())))
        if any(name == known.id() for known in state.node.peers):
            state.joining.pop(name, None)
            return True
        since = state.joining.setdefault(name, time.monotonic())
        has_to_wait = bool(state.in_flight()) and time.monotonic() - since < self._seconds
        if not has_to_wait:
            state.joining.pop(name, None)
        return not has_to_wait


async def hold(state: NodeState) -> None:
    """A new answer begins after who joins now, who would never find the ring without answers."""
    if state.joining:
        seconds = settings.seconds("JOIN_SECONDS", WAIT_SECONDS)
        await state.wait_until(lambda: not state.in_flight(), seconds)
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


async def lose(state: NodeState, peer: Any, sure: bool = False) -> None:
    """Take a node out of the ring at once, if it can't be reached; exo takes 16 s.

    sure: it was asked just now.
    """
    node, name = state.node, peer.id()
    if name in state.lost or (not sure and await reached(peer)):
        return
    if name in state.lost or peer not in node.peers:  # somebody else was quicker
        return
    state.lost[name] = set()
    if isinstance(peer, Link):
        peer.lose()
    _log.error(
        "node %s can't be reached: it is left out until it answers again. If it should be there, "
        "look at its log and start it anew",
        name,
    )
    async with state.looking:
        node.peers = [other for other in node.peers if other is not peer]
    ended = state.in_flight(with_waiting=True)
    since = time.monotonic() - NOTICE_SECONDS
    unheard = {request_id for at, request_id in state.cut_off if at > since}
    state.lost.get(name, set()).update(ended | unheard)
    await node.collect_topology(set())
    await _end_all(state, ended, AWAY)


async def _end_all(state: NodeState, request_ids: set[str], sentence: str) -> None:
    """End answers that the nodes of the ring before can't go on with."""
    ends = [state.end(request_id, AnswerError(sentence, lost=True)) for request_id in request_ids]
    await asyncio.gather(*ends)


def fit(state: NodeState, theirs: Any) -> None:
    """Refuse what was sent for other layers than this node believes to have.

    Who joins, leaves or restarts sees another ring than the others for some seconds; an input can
    fit all the same: the answer would be wrong, or its tokens would reach nobody. Raises
    AnswerError.
    """
    mine = state.node.get_current_shard(theirs)
    here, there = ((s.start_layer, s.end_layer) for s in (mine, theirs))
    if here != there:
        raise AnswerError(
            f"{PACKAGE}: node {state.node.id} has layers {here[0]} to {here[1]}, but was asked for "
            f"{there[0]} to {there[1]}: the cluster has just changed. {AGAIN}",
            lost=True,
        )


@patches("exo.orchestration.node:Node.process_tensor", looks.takes_other_layers)
def refuse_other_layers(original: Function, engine_class: Any) -> Function:
    """A node takes a step for layers that it doesn't have, while the cluster changes."""

    async def process_tensor(self: Any, base_shard: Any, *rest: Any, **named: Any) -> Any:
        if state := state_of(self, engine_class):
            fit(state, base_shard)
        return await original(self, base_shard, *rest, **named)

    return process_tensor


@patches("exo.orchestration.node:Node.update_peers", looks.leaves_orphans)
def end_orphans(original: Function, engine_class: Any) -> Function:
    """Who joins or leaves changes everybody's layers, and answers in flight wait for ever."""

    async def update_peers(self: Any, *args: Any, **named: Any) -> bool:
        state = state_of(self, engine_class)
        if state is None:
            return bool(await original(self, *args, **named))
        async with state.looking:
            before = {peer.id() for peer in self.peers}
            real, self.discovery = self.discovery, Ring(state, self.discovery)
            try:
                changed = bool(await original(self, *args, **named))
            finally:
                self.discovery = real
            left = before - {peer.id() for peer in self.peers}
        if changed:
            # Who left may have the prompt: it has no way back for the first token.
            await _end_all(state, state.in_flight(with_waiting=bool(left)), CHANGED)
        return changed

    return update_peers


@patches("exo.orchestration.node:Node.collect_topology", looks.overtakes)
def one_look_at_a_time(original: Function, engine_class: Any) -> Function:
    """An older picture of the ring can replace a newer one, with a node that is gone."""

    async def collect_topology(self: Any, *args: Any, **named: Any) -> Any:
        state = state_of(self, engine_class)
        if state is None:
            return await original(self, *args, **named)
        async with state.looking:
            return await original(self, *args, **named)

    return collect_topology


@patches("exo.orchestration.node:Node.forward_tensor", looks.drops_errors_on_the_way)
def end_cut_answers(original: Function, engine_class: Any) -> Function:
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
