"""The orderly end of a node: exo's own closes no engine (helpers.py:329, main.py:320)."""

import asyncio
from typing import Any

from .....names import PACKAGE
from .node import AnswerError, NodeState, state_of
from .patch import Function, patches

CLOSE_SECONDS = 1.5  # a device that hangs is waited for no longer
TELL_SECONDS = 0.5  # for the other nodes to hear of it
WRITE_SECONDS = 0.05  # for the API to write the last events


@patches("exo.main:shutdown")
def close_at_the_end(original: Function, engine_class: type) -> Function:
    """SIGTERM and SIGINT never reach an engine's close() (helpers.py:329)."""

    async def shutdown(signal: Any, loop: Any, server: Any) -> None:
        state = state_of(getattr(server, "node", None), engine_class)
        if state is not None:
            await _close(state)
        # exo ends this very task half-way; a task of its own keeps this plugin out of its words.
        _ending.add(asyncio.ensure_future(original(signal, loop, server)))
        await asyncio.sleep(0)

    return shutdown


@patches("exo.api.chatgpt_api:shutdown")
def close_at_quit(original: Function, engine_class: type) -> Function:
    """/quit never reaches an engine's close() (chatgpt_api.py:214-219)."""
    return close_at_the_end(original, engine_class)


async def _close(state: NodeState) -> None:
    """End the answers in flight with a sentence, and give the device back."""
    error = AnswerError(f"{PACKAGE}: this node was stopped. Send the request again", lost=True)
    flying = {*state.exo_engine.engine.requests, *state.asked}
    if flying:
        told = {asyncio.ensure_future(state.end(request_id, error)) for request_id in flying}
        await asyncio.wait(told, timeout=TELL_SECONDS)
        await asyncio.sleep(WRITE_SECONDS)
    await state.exo_engine.close(CLOSE_SECONDS)


_ending: set["asyncio.Future[None]"] = set()
