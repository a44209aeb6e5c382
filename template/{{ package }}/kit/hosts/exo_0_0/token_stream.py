"""A whole answer as the ids that exo asks for, one a step."""

import asyncio
from collections import deque
from typing import cast

from ...contract import Piece, Request, RequestError
from ...engine.engine import Engine
from ...text.reasoning import ReasoningMarks
from ...text.tokenizer import Tokenizer
from .retokenizer import Retokenizer, Spelling


class TokenStream:
    """One answer of an AnswerBackend; its end is the EOS id that exo waits for.

    retokenizer: gives ids to text that came without any. cut: the answer was ended by a limit of
    the device's or server's.
    """

    def __init__(
        self, engine: Engine, request: Request, retokenizer: "asyncio.Future[Retokenizer]"
    ) -> None:
        self._tokenizer = cast(Tokenizer, engine.tokenizer)
        self._pieces = engine.answer(request, text=False)
        self._retokenizer = retokenizer
        self._spelling: Spelling | None = None
        self._reasoning = ReasoningMarks(request.prompt)
        self._ids: deque[int] = deque()
        self._left = request.max_tokens
        self._begun = False
        self._over = False
        self.cut = False

    async def next_id(self) -> int:
        """The next id; raises what ended the answer once its ids are handed out."""
        while not self._ids:
            if self._over:
                raise RequestError("this answer has ended. Send the request again")
            try:
                await self._take(await anext(self._pieces))
            except StopAsyncIteration:
                self._over = True
        return self._ids.popleft()

    async def _take(self, piece: Piece) -> None:
        ids, finish = await self._ids_of(piece), piece.finish
        if len(ids) > self._left:  # a text may have more ids here than at the server
            ids, finish = self._whole(ids[: self._left]), "length"
        self._left -= len(ids)
        self._ids.extend(ids)
        self._begun = self._begun or bool(ids)
        if finish:
            self._over, self.cut = True, finish == "length"
            end = self._tokenizer.eos_token_id
            if not self._ids or self._ids[-1] != end:
                self._ids.append(end)

    async def _ids_of(self, piece: Piece) -> list[int]:
        if piece.ids:
            if self._spelling is not None:
                self._spelling.follow()
            return list(piece.ids)
        text = self._reasoning.feed(piece.text, piece.thinking, piece.finish)
        if not text:
            return []
        if self._spelling is None:
            self._spelling = (await asyncio.shield(self._retokenizer)).start()
            if self._begun:
                self._spelling.follow()
        return self._spelling.feed(text)

    def _whole(self, ids: list[int]) -> list[int]:
        """Ids without those of a last character that isn't whole."""
        while ids and self._tokenizer.decode(ids).endswith("\ufffd"):
            ids = ids[:-1]
        return ids
