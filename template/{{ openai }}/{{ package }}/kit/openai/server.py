"""A backend over an OpenAI-compatible server: as many answers at once as the host asks for."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ..cards import Cards, Model
from ..contract import Messages, Piece, Request, RequestError
from ..server.address import clean
from ..server.client import Client, Refused, ServerError
from ..server.models import Served, choose_model, listed
from ..text.tokenizer import Tokenizer
from .dialect import Dialect, Question
from .matching import cards_of
from .probe import probe
from .prompt_mode import PromptMode, find_prompt_mode
from .refusal import Patience, advised, context_in
from .settings import Settings, named

END_SECONDS = 0.2  # for a stream's last events, after which its connection can be used again
_CUT = "the server's stream stopped without its last event: the answer is not whole; see its log"
_EMPTY = (
    "the server's stream is empty, as some leave it where a prompt is longer than their context: "
    "send fewer tokens, or see the server's log"
)

_log = logging.getLogger(__name__)


class OpenAIBackend:
    """An AnswerBackend (kit/contract.py). Closing an answer closes its connection.

    That is the cancel that these servers know: they stop working on it.
    """

    contract = 1
    models: ClassVar[Cards]  # of the plugin, for what check() says of them

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._client: Client | None = None
        self._server: Dialect | None = None
        self._served = Served("")
        self._prompt_mode = PromptMode("", "")
        self._tokenizer: Tokenizer | None = None

    def settings(self) -> Settings:
        """Where the server is. Raises SettingError."""
        return Settings.from_env(os.environ)

    def choose(self, model: Model, names: Sequence[str], settings: Settings) -> str:
        """The server's name for a model. Raises ServerError."""
        return choose_model(model, names, settings.model, named("MODEL"))

    async def messages(self, request: Request) -> Messages:
        """What a server that takes chats alone is sent for a request."""
        return request.conversation()

    async def load(self, model: Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        """Find the server's model for this one, and how it is spoken to. Raises ServerError."""
        await self.close()
        settings = self.settings()
        server = await self._connect(settings, settings.load_seconds)
        try:
            models = {m.name: m for m in await server.models()}
            self._served = models[self.choose(model, list(models), settings)]
            self._prompt_mode = await find_prompt_mode(
                server, self._served.name, tokenizer, settings.prompt_mode
            )
        except Refused as error:
            raise advised(error, settings) from error
        self._server, self._tokenizer = server, tokenizer
        _log.info("%s: %s, in %s", server.name, clean(self._served.name), self._prompt_mode.kind)

    async def _connect(self, settings: Settings, seconds: float = 0.0) -> Dialect:
        self._settings, self._client = settings, Client(settings)
        return await probe(self._client, settings, seconds)

    async def check(self) -> str:
        """The server's kind, version, models, and how they are spoken to. Raises ServerError."""
        settings = self.settings()
        server = await self._connect(settings)
        try:
            models, version = await server.models(), ""
            with suppress(Refused):  # an older one may have no such path
                version = clean(await server.version())
            name = " ".join(filter(None, (server.name, version)))
            found = [f"{name} at {settings.address.shown}"]
            found.append(listed([m.name for m in models]))
            found += await cards_of(self.models, server, models, self.choose, settings)
        except Refused as error:
            raise advised(error, settings) from error
        return "; ".join([*found, *(["key accepted"] if settings.key else [])])

    async def names(self) -> list[Served]:
        """What the server serves. Raises ServerError."""
        settings = self.settings()
        try:
            return await (await self._connect(settings)).models()
        except Refused as error:
            raise advised(error, settings) from error

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises ServerError or RequestError, never ends without saying why."""
        settings, tokenizer = self._settings, self._tokenizer
        if settings is None or tokenizer is None:
            raise ServerError("no model is loaded")
        patience, begun = Patience(settings.busy_seconds), False
        while True:
            try:
                async with aclosing(self._asked(request, tokenizer)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except Refused as error:
                context = context_in(error)
                if context and context != self._served.context:
                    self._served = replace(self._served, context=context)
                    continue
                seconds = None if begun else patience.wait(error)
                if seconds is None:
                    raise advised(error, settings) from error
            await asyncio.sleep(seconds)

    async def _asked(self, request: Request, tokenizer: Tokenizer) -> AsyncGenerator[Piece, None]:
        """One try, its pieces up to the first that ends the answer."""
        ends, begun = tokenizer.eos_token_ids, False
        async with aclosing(await self._stream(request, tokenizer)) as pieces:
            async for piece in pieces:
                begun = True
                if piece.text and not piece.ids and self._prompt_mode.kind == "ids":
                    piece = replace(piece, ids=_ids(piece.text, tokenizer))
                at = next((n for n, i in enumerate(piece.ids) if i in ends), None)
                if at is not None:
                    piece = replace(piece, text="", ids=piece.ids[:at], finish="stop")
                if not piece.finish:
                    if piece.ids or piece.text:
                        yield piece
                    continue
                with suppress(TimeoutError, ServerError):
                    async with asyncio.timeout(END_SECONDS):
                        async for _ in pieces:
                            pass
                yield piece
                return
        raise ServerError(_CUT if begun else _EMPTY)

    async def _stream(self, request: Request, tokenizer: Tokenizer) -> AsyncGenerator[Piece, None]:
        """The server's pieces, by the way that was found."""
        server, prompt_mode = self._server, self._prompt_mode
        if server is None:
            raise ServerError("no model is loaded")
        question = Question(
            self._served.name,
            request.prompt.removeprefix(prompt_mode.bos),
            request.ids,
            self._limit(request),
            request.sampling.temperature,
            request.sampling.top_p,
            tuple(sorted(tokenizer.eos_token_ids)),
        )
        if prompt_mode.kind == "ids":
            return server.ids(question, prompt_mode.way)
        if prompt_mode.kind == "text":
            return server.text(question)
        return server.chat(question, await self.messages(request))

    def _limit(self, request: Request) -> int:
        """The host's limit, or what the server's context leaves after the prompt."""
        if self._served.context is None:
            return request.max_tokens
        left = self._served.context - len(request.ids)
        if left < 1:
            raise RequestError(
                f"the prompt has {len(request.ids)} tokens, and the server's model takes "
                f"{self._served.context} with the answer's. Send fewer, or start the server with "
                "a longer context"
            )
        return min(request.max_tokens, left)

    async def close(self) -> None:
        """End every connection, and with it what is still being answered."""
        self._server = None
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a character that came as text alone; none where they'd read otherwise behind."""
    before = tokenizer.encode("a")
    ids = tokenizer.encode(text)
    whole = tokenizer.decode([*before, *ids]) == tokenizer.decode(before) + text
    return tuple(ids) if whole else ()
