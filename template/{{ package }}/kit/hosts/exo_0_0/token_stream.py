"""A whole answer as the ids that exo asks for, one a step."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol, cast

from ...contract import Messages, Piece, Request, RequestError
from ...engine.engine import Engine
from ...text.reasoning import ReasoningMarks
from ...text.tokenizer import Tokenizer


class Speller(Protocol):
    """Text in any pieces to ids whose decoding is that text."""

    def feed(self, text: str) -> list[int]:
        """The ids of one more piece."""

    def follow(self) -> None:
        """Ids that were not spelt here went out before the next text."""


class TextHost(Protocol):
    """What turns a prompt into messages, and text into ids (fork_text.py)."""

    def __init__(self, tokenizer: Tokenizer) -> None: ...

    def read(self, prompt: str) -> Messages:
        """The conversation that a prompt was made of."""

    def spell(self) -> Speller:
        """A new answer's spelling."""


class Answer:
    """One answer of an AnswerBackend; the end of the stream is the EOS id that exo waits for.

    cut: it ended by a limit of the device's or server's, not by itself.
    """

    def __init__(self, engine: Engine, text: TextHost | None, request: Request) -> None:
        self._engine = engine
        self._pieces = engine.answer(request)
        self._spelling = text.spell() if text is not None else None
        self._thinking = ReasoningMarks(request.prompt)
        self._ids: deque[int] = deque()
        self._left = request.max_tokens
        self._over = False
        self.cut = False

    async def next_id(self) -> int:
        """The next id; raises what ended the answer once its ids are handed out."""
        while not self._ids:
            if self._over:
                raise RequestError("this answer has ended. Send the request again")
            try:
                self._take(await anext(self._pieces))
            except StopAsyncIteration:
                self._over = True
        return self._ids.popleft()

    def _take(self, piece: Piece) -> None:
        ids, finish = self._ids_of(piece), piece.finish
        if len(ids) > self._left:  # a text may have more ids here than at the server
            ids, finish = self._whole(ids[: self._left]), "length"
        self._left -= len(ids)
        self._ids.extend(ids)
        if finish:
            self._over, self.cut = True, finish == "length"
            end = cast(Tokenizer, self._engine.tokenizer).eos_token_id
            if not self._ids or self._ids[-1] != end:
                self._ids.append(end)

    def _ids_of(self, piece: Piece) -> list[int]:
        if piece.ids:
            if self._spelling is not None:
                self._spelling.follow()
            return list(piece.ids)
        text = self._thinking.feed(piece.text, piece.thinking, piece.finish)
        return self._spelled(text) if text else []

    def _whole(self, ids: list[int]) -> list[int]:
        """Ids without those of a last character that isn't whole."""
        tokenizer = cast(Tokenizer, self._engine.tokenizer)
        while ids and tokenizer.decode(ids).endswith("\ufffd"):
            ids = ids[:-1]
        return ids

    def _spelled(self, text: str) -> list[int]:
        if self._spelling is None:
            raise RequestError(
                "the backend gives text without ids, and this engine can't spell it: render a "
                "variant that talks to servers, or give ids"
            )
        return self._spelling.feed(text)

    def close(self) -> None:
        """Let the stream go; it was ended already."""
        self._over = True

        async def closing() -> None:
            with suppress(RuntimeError):  # a step waits in it, and hears of the end by itself
                await self._pieces.aclose()

        _closing.add(task := asyncio.ensure_future(closing()))
        task.add_done_callback(_closing.discard)


_closing: set["asyncio.Task[None]"] = set()
