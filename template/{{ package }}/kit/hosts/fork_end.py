"""The orderly end of a node: exo's own closes no engine (helpers.py:329, main.py:320)."""

import asyncio
from typing import Any

from ..names import PACKAGE
from .fork_mends import Function, mends
from .fork_node import AnswerError, face_of

CLOSE_SECONDS = 2.0  # a device that hangs is waited for no longer
WRITE_SECONDS = 0.05  # for the API to write the last events


@mends("exo.main:shutdown")
def close_at_the_end(original: Function, engine_class: type) -> Function:
    """SIGTERM and SIGINT never reach an engine's close() (helpers.py:329)."""

    async def shutdown(signal: Any, loop: Any, server: Any) -> None:
        face = face_of(getattr(server, "node", None), engine_class)
        if face is not None:
            flying = list(face.engine.runner.requests)
            error = AnswerError(f"{PACKAGE}: this node was stopped. Send the request again", True)
            for request_id in flying:
                await asyncio.wait(
                    {asyncio.ensure_future(face.end(request_id, error))}, timeout=0.5
                )
            if flying:
                await asyncio.sleep(WRITE_SECONDS)
            await face.engine.close(CLOSE_SECONDS)
        await original(signal, loop, server)

    return shutdown
