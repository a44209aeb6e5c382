"""One answer on its way from the server's chunks to pieces, and what tells it from a failure."""

import re

from ..contract import Piece, Usage
from ..server.address import clean
from ..server.client import ServerError
from .dialect import Chunk, Dialect

_TASK_ERROR = "<RKLLM_TASK_ERROR>"
_ABORTED = "Aborted inference by Timeout ("
_PADDING = re.compile(r"(\s*\[PAD\d*\])*\s*(\[(P(A(D\d*)?)?)?)?")
_WHOLE_PADDING = re.compile(r"(\s*\[PAD\d*\])+\s*")
_PADDINGS = 3  # so many at the start of an answer are no accident


class SharedError(ServerError):
    """An answer has more text than is its own."""


class Answer:
    """The pieces of one answer: at most `limit` chunks of text, of `most` tokens at most.

    The text's start is held back only while it may still be nothing but [PAD] tokens. over: the
    host has all that it wants, what still comes is for nobody. ran_out: the server's limit ended
    the answer. final: its last event has come.
    """

    def __init__(self, limit: int, most: int) -> None:
        self.over = False
        self.final = False
        self.ran_out = False
        self._limit = limit
        self._most = most
        self._chunks = 0
        self._prompt = 0  # tokens of it, where the server tells
        self._count = 0  # of tokens; a character of several is one chunk
        self._held: str | None = ""  # None: the start is over, text goes out at once

    def feed(self, chunk: Chunk) -> list[Piece]:
        """Take a chunk. Raises ServerError where it is no part of an answer."""
        self.final = self.final or chunk.final
        self._count, self._prompt = chunk.count or self._count, chunk.prompt or self._prompt
        # Where the server gives no count, an answer of many chunks may have come to its limit.
        unknown = self.final and not self._count and 2 * self._chunks >= self._most
        self.ran_out = self.ran_out or chunk.length or self._count >= self._most or unknown
        if self.over:
            return []
        _refuse(chunk)
        if chunk.calls:
            self._chunks += 1
            return [Piece(tool_calls=chunk.calls)]
        if not chunk.text:
            return []
        self._chunks += 1
        text = chunk.text if chunk.thinking else self._let_out(chunk.text)
        if self._chunks >= self._limit:
            self.over = True
            return [Piece(text + self._rest(), thinking=chunk.thinking, finish="length")]
        return [Piece(text, thinking=chunk.thinking)] if text else []

    def end(self, server: Dialect) -> Piece:
        """The last piece, where the stream ended. Raises ServerError where that was no good end."""
        if server.ends_with_event and not self.final:
            raise ServerError(
                "the server's stream stopped without its last event: the answer is not whole"
            )
        if not self._chunks:
            raise ServerError(
                "the server answered with empty text; see its log (a runtime error or a "
                "tokenizer that does not fit the model gives empty answers)"
            )
        if server.counts_chunks and 0 < self._count < self._chunks - 1:
            raise SharedError(
                f"the server sent {self._chunks} tokens and counts {self._count}: the others are "
                "of another client's answer. Such a server can't be shared: give each node its own"
            )
        reached = self.ran_out or self._count >= self._limit
        usage = Usage(self._prompt, self._count) if self._prompt and self._count else None
        return Piece(self._rest(), finish="length" if reached else "stop", usage=usage)

    def _let_out(self, text: str) -> str:
        if self._held is None:
            return text
        self._held += text
        if not _PADDING.fullmatch(self._held):
            text, self._held = self._held, None
            return text
        if self._held.count("]") >= _PADDINGS:
            raise _padding_error()
        return ""

    def _rest(self) -> str:
        held, self._held = self._held or "", None
        if _WHOLE_PADDING.fullmatch(held):
            raise _padding_error()
        return held


def _refuse(chunk: Chunk) -> None:
    if chunk.text == _TASK_ERROR:
        raise ServerError(
            f"the NPU runtime failed in this answer ({_TASK_ERROR}); see the server's log"
        )
    if chunk.text.startswith(_ABORTED):
        raise ServerError(f"the server gave up: {clean(chunk.text)}")


def _padding_error() -> ServerError:
    return ServerError(
        "the answer is [PAD] tokens: the model was converted for another runtime version than the "
        "server's; convert it with the matching rkllm-toolkit"
    )
