"""Another node, as exo's node calls it: one that is gone is noticed soon, and said once."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from ..node_state import AWAY, AnswerError

LOOK_SECONDS = 1.0  # how often a node that is slow to answer is asked whether it is there
STILL_SECONDS = 3.0  # how long a connected node may say nothing: it can be busy
REACH_SECONDS = 1.0  # how long a new connection may take


class Link:
    """Around exo's handle of a peer. A call to a node that is gone ends, whatever gRPC does.

    exo waits for a step without a bound, and prints a traceback for each word that a peer doesn't
    get. doubt: called where this peer may be gone, and with True where it said nothing when asked.
    """

    def __init__(self, peer: Any, doubt: Callable[["Link", bool], object]) -> None:
        self.peer = peer
        self.gone = asyncio.get_running_loop().create_future()
        self._doubt = doubt
        self._look: asyncio.Task[bool] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.peer, name)

    async def send_prompt(self, *args: Any, **named: Any) -> Any:
        """The first step, on the node with the first layers."""
        return await self._watched(self.peer.send_prompt(*args, **named))

    async def send_tensor(self, *args: Any, **named: Any) -> Any:
        """The next step."""
        return await self._watched(self.peer.send_tensor(*args, **named))

    async def deliver_status(self, request_id: str, status: str) -> None:
        """A status that has to arrive. Raises as a step does."""
        await self._watched(self.peer.send_opaque_status(request_id, status))

    async def send_result(self, *args: Any, **named: Any) -> None:
        """New ids."""
        await self._if_there(self.peer.send_result(*args, **named))

    async def send_opaque_status(self, *args: Any, **named: Any) -> None:
        """Anything else."""
        await self._if_there(self.peer.send_opaque_status(*args, **named))

    async def connect(self) -> None:
        """exo connects to each peer that isn't."""
        await self._if_there(asyncio.wait_for(self.peer.connect(), REACH_SECONDS))

    async def collect_topology(self, *args: Any, **named: Any) -> Any:
        """The nodes that the peer knows: none where it says nothing."""
        topology = await self._if_there(self.peer.collect_topology(*args, **named))
        return topology or SimpleNamespace(nodes={}, peer_graph={})

    def lose(self) -> None:
        """End all that waits for this peer."""
        if not self.gone.done():
            self.gone.set_result(None)

    async def reached(self) -> bool:
        """Whether the peer answers; looked at once for all that want to know."""
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(reached(self.peer))
        return await asyncio.shield(self._look)

    async def _watched(self, call: Coroutine[Any, Any, Any]) -> Any:
        if self.gone.done():
            call.close()
            raise AnswerError(AWAY, lost=True)
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait({task, self.gone}, timeout=LOOK_SECONDS, return_when=_FIRST)
                if task.done() or (not self.gone.done() and await self.reached()):
                    continue
                if not self.gone.done():
                    self._doubt(self, True)
                raise AnswerError(AWAY, lost=True)
            return task.result()
        finally:
            task.cancel()

    async def _if_there(self, call: Coroutine[Any, Any, Any]) -> Any:
        with suppress(Exception):  # whatever gRPC raises: that this peer is gone is said elsewhere
            return await self._watched(call)
        if not self.gone.done():
            self._doubt(self, False)
        return None


_FIRST = asyncio.FIRST_COMPLETED


async def reached(peer: Any) -> bool:
    """Whether a peer answers exo's question for its health."""
    with suppress(Exception):  # whatever a peer that is gone does
        seconds = STILL_SECONDS if await peer.is_connected() else REACH_SECONDS
        return bool(await asyncio.wait_for(peer.health_check(), seconds))
    return False
