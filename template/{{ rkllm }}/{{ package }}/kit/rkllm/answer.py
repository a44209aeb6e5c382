"""One answer on its way from the server's text to exo's ids."""

import asyncio
import re
import time
from collections import deque

from .client import ServerError
from .dialects import Chunk
from .retokenize import Spelling

_TASK_ERROR = "<RKLLM_TASK_ERROR>"
_ABORTED = "Aborted inference by Timeout ("
_PADDING = re.compile(r"(\s*\[PAD\d*\])*\s*(\[(P(A(D\d*)?)?)?)?")
_WHOLE_PADDING = re.compile(r"(\s*\[PAD\d*\])+\s*")
_PADDINGS = 3  # so many at the start of an answer are no accident


class Answer:
    """Ids of one answer, and the rules that tell an answer from a failure.

    The text's start is held back only while it may still be nothing but [PAD] tokens.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.task: asyncio.Task[None] | None = None
        self.reading = False  # its turn at the server has come
        self._spelling = spelling
        self._ids: deque[int] = deque()
        self._arrived = asyncio.Event()
        self._held: str | None = ""  # None: the start is over, text goes out at once
        self._text_seen = False
        self._error: Exception | None = None
        self._unread_since: float | None = None

    async def next_id(self) -> int:
        """The next id; raises what ended the answer once its ids are handed out."""
        while not self._ids:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            self._unread_since = None
            await self._arrived.wait()
        token = self._ids.popleft()
        self._unread_since = time.monotonic() if self._ids else None
        return token

    def unread_seconds(self) -> float:
        """For how long ids have been waiting for exo to ask."""
        return 0.0 if self._unread_since is None else time.monotonic() - self._unread_since

    def feed(self, chunk: Chunk) -> None:
        """Take a piece of the stream. Raises ServerError where it is no answer."""
        if chunk.text == _TASK_ERROR:
            raise ServerError(
                f"the NPU runtime failed in this answer ({_TASK_ERROR}); see the server's log"
            )
        if chunk.text.startswith(_ABORTED):
            raise ServerError(f"the server gave up: {chunk.text.strip()}")
        if chunk.text:
            self._text_seen = True
            self._take(chunk.text)
        if chunk.final and chunk.count == 0:
            raise ServerError(
                "the server counted 0 tokens: it aborted the answer. Ask again; if it stays, "
                "load the model anew"
            )

    def _take(self, text: str) -> None:
        if self._held is None:
            self._hand_out(text)
            return
        self._held += text
        if len(re.findall(r"\[PAD\d*\]", self._held)) >= _PADDINGS and _PADDING.fullmatch(
            self._held
        ):
            raise _padding_error()
        if not _PADDING.fullmatch(self._held):
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._hand_out(held)

    def _hand_out(self, text: str) -> None:
        self._put(self._spelling.feed(text))

    def _put(self, ids: list[int]) -> None:
        if not ids:
            return
        self._ids.extend(ids)
        if self._unread_since is None:
            self._unread_since = time.monotonic()
        self._arrived.set()

    def finish(self, eos_token_id: int) -> None:
        """The stream ended well. Raises ServerError where there was no text."""
        if not self._text_seen:
            raise ServerError(
                "the server answered with empty text; see its log (a runtime error or a "
                "tokenizer that does not fit the model gives empty answers)"
            )
        if self._held and _WHOLE_PADDING.fullmatch(self._held):
            raise _padding_error()
        self._release()
        self._put([eos_token_id])

    def fail(self, error: Exception) -> None:
        """End the answer with an error, after the ids that are already there."""
        self._held = None
        self._error = error
        self._arrived.set()


def _padding_error() -> ServerError:
    return ServerError(
        "the answer is [PAD] tokens: the model was converted for another runtime version than the "
        "server's; convert it with the matching rkllm-toolkit"
    )
