"""exo's ring of nodes: who joins waits, who is lost goes at once, and answers in flight end."""

import asyncio
import logging
import time
from typing import Any

from ..core import settings
from ..names import PACKAGE
from .fork_mends import Function, mends
from .fork_node import AnswerError, Face, face_of, why

WAIT_SECONDS = 30.0  # how long a node that joins waits for the answers in flight
REACH_SECONDS = 1.0  # what a lost node's health check may take

_log = logging.getLogger(__name__)


class Ring:
    """In place of exo's discovery while it asks: leaves out who is lost, or has to wait."""

    def __init__(self, face: Face, discovery: Any) -> None:
        self._face, self._discovery = face, discovery
        self._wait = settings.seconds("JOIN_SECONDS", WAIT_SECONDS)

    async def discover_peers(self, wait_for_peers: int = 0) -> list[Any]:
        """The peers that exo may use now."""
        found = await self._discovery.discover_peers(wait_for_peers)
        return [peer for peer in found if await self._usable(peer)]

    async def _usable(self, peer: Any) -> bool:
        face, name = self._face, peer.id()
        if name in face.lost:
            if not await _reached(peer):
                return False
            face.lost.discard(name)
            _log.warning("node %s is back", name)
        if any(name == known.id() for known in face.node.peers):
            face.joining.pop(name, None)
            return True
        since = face.joining.setdefault(name, time.monotonic())
        waits = bool(face.engine.runner.requests) and time.monotonic() - since < self._wait
        if not waits:
            face.joining.pop(name, None)
        return not waits


async def _reached(peer: Any) -> bool:
    try:
        return bool(await asyncio.wait_for(peer.health_check(), REACH_SECONDS))
    except Exception:  # whatever a peer that is gone does
        return False


async def lost(face: Face, index: int) -> None:
    """Take the node with these layers out of the ring, if it can't be reached; exo takes 16 s."""
    node = face.node
    partitions = node.partitioning_strategy.partition(node.topology)
    name = partitions[index].node_id if index < len(partitions) else ""
    peer = next((peer for peer in node.peers if peer.id() == name), None)
    if peer is None or name in face.lost or await _reached(peer):
        return
    face.lost.add(name)
    _log.error(
        "node %s can't be reached: it is left out until it answers again. If it should be there, "
        "look at its log and start it anew",
        name,
    )
    await node.update_peers()
    await node.collect_topology(set())


@mends("exo.orchestration.node:Node.update_peers")
def end_orphans(original: Function, engine_class: type) -> Function:
    """Who joins or leaves changes everybody's layers, and answers in flight wait for ever."""

    async def update_peers(self: Any, *args: Any, **named: Any) -> bool:
        face = face_of(self, engine_class)
        if face is None:
            return bool(await original(self, *args, **named))
        real, self.discovery = self.discovery, Ring(face, self.discovery)
        try:
            changed = bool(await original(self, *args, **named))
        finally:
            self.discovery = real
        if changed and not face.engine.runner.device.whole_model:
            reason = f"{PACKAGE}: a node joined or left the cluster. Send the request again"
            for request_id in face.engine.runner.requests:
                await face.end(request_id, AnswerError(reason, lost=True))
        return changed

    return update_peers


@mends("exo.orchestration.node:Node.forward_tensor")
def end_cut_answers(original: Function, engine_class: type) -> Function:
    """An error on the way to the next node is dropped with its task (node.py:152)."""

    async def forward_tensor(
        self: Any, base_shard: Any, tensor: Any, request_id: Any, target_index: int, *rest: Any
    ) -> None:
        try:
            await original(self, base_shard, tensor, request_id, target_index, *rest)
        except Exception as error:
            face = face_of(self, engine_class)
            if face is None:
                raise
            known = why(error)
            await face.end(request_id, known)
            if known.lost:
                await lost(face, target_index)

    return forward_tensor
