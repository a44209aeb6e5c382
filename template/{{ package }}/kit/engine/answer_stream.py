"""A whole answer on its way from a backend to whoever takes its pieces."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ..contract import Piece, RequestError

MOST_WAITING = 4096  # pieces that nobody has taken yet; then the backend waits


class AnswerStream:
    """One answer: a task of its own iterates the backend's generator, and ends with it.

    Whatever ends the task, also a cancel from elsewhere, is the end of the stream, in words: who
    waits for a piece gets a last piece or an error, and never waits for ever.
    """

    def __init__(self, pieces: AsyncGenerator[Piece, None]) -> None:
        self._pieces: deque[Piece] = deque()
        self._error: Exception | None = None  # once the pieces are taken
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._iterate(pieces))
        self.task.add_done_callback(self._over)

    async def next(self) -> Piece:
        """The next piece. Raises what ended the answer."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            self._came.clear()
            await self._came.wait()
        self._taken.set()
        return self._pieces.popleft()

    def end(self, error: RequestError) -> None:
        """Nothing comes any more but this error; the backend's generator is closed."""
        self._pieces.clear()
        self._error = error
        self._came.set()
        self.task.cancel()

    async def _iterate(self, pieces: AsyncGenerator[Piece, None]) -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                self._pieces.append(piece)
                self._came.set()
                while len(self._pieces) >= MOST_WAITING:
                    self._taken.clear()
                    await self._taken.wait()

    def _over(self, task: "asyncio.Task[None]") -> None:
        if self._error is not None:
            return
        if task.cancelled():
            self._error = RequestError("what made this answer was cancelled. Send it again")
        elif (error := task.exception()) is None:
            self._pieces.append(Piece(finish="stop"))  # where the backend said no end
            self._error = RequestError("this answer has ended")
        else:
            self._error = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self._came.set()
