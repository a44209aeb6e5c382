"""The orderly end of a node: exo's own closes no engine (helpers.py:329, main.py:320)."""

import asyncio
from typing import Any

from .....names import PACKAGE
from ..node_state import AGAIN, AnswerError, NodeState, later, state_of
from . import looks
from .looks import Function
from .patch import patches

CLOSE_SECONDS = 1.5  # a device that hangs is waited for no longer
TELL_SECONDS = 0.5  # for the other nodes to hear of it
CLIENT_SECONDS = 0.5  # for the API to make the last events
WRITE_SECONDS = 0.05  # and to write them


@patches("exo.main:shutdown", looks.closes_no_engine)
def close_at_the_end(original: Function, engine_class: Any) -> Function:
    """SIGTERM and SIGINT never reach an engine's close() (helpers.py:329)."""

    async def shutdown(signal: Any, loop: Any, server: Any) -> None:
        state = state_of(getattr(server, "node", None), engine_class)
        if state is not None:
            await _close(state)
        # exo ends this very task half-way; a task of its own keeps this plugin out of its words.
        later(original(signal, loop, server))
        await asyncio.sleep(0)

    return shutdown


@patches("exo.api.chatgpt_api:shutdown", looks.closes_no_engine)
def close_at_quit(original: Function, engine_class: Any) -> Function:
    """/quit never reaches an engine's close() (chatgpt_api.py:214-219)."""
    return close_at_the_end(original, engine_class)


async def _close(state: NodeState) -> None:
    """End the answers in flight with a sentence, and give the device back."""
    error = AnswerError(f"{PACKAGE}: this node was stopped. {AGAIN}", lost=True)
    state.stopped = error
    ended = [state.end(name, error) for name in state.in_flight(with_waiting=True)]
    if ended:
        await asyncio.wait([later(end) for end in ended], timeout=TELL_SECONDS)
        await state.wait_until(lambda: not state.clients, CLIENT_SECONDS)
        await asyncio.sleep(WRITE_SECONDS)
    await state.exo_engine.close(CLOSE_SECONDS)
