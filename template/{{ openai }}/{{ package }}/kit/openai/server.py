"""A backend over an OpenAI-compatible server: as many answers at once as the host asks for."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ..cards import Cards, Model
from ..contract import Messages, Piece, Request, RequestError, Usage
from ..server.address import clean
from ..server.client import Client, Refused, ServerError
from ..server.events import BrokenOffError, in_time
from ..server.models import Served, choose_model, listed
from ..text.tokenizer import Tokenizer
from .connection import Connection, connect
from .cut import Cut
from .dialect import Dialect, ServerRequest
from .matching import cards_of
from .probe import probe
from .refusal import Patience, advised
from .remedies import Remedies
from .settings import Settings, named

END_SECONDS = 0.2  # for a stream's last events, after which its connection can be used again
_CUT = "the server's stream stopped without its last event: the answer is not whole; see its log"
_EMPTY = (
    "the server's stream is empty, as some leave it where a prompt is longer than their context: "
    "send fewer tokens, or see the server's log"
)
_NO_WORD = (
    "the server ended the answer without a word: its model had nothing to say to this prompt, or "
    "failed; send it otherwise, or see the server's log"
)


class OpenAIBackend:
    """An AnswerBackend (kit/contract.py). Closing an answer closes its connection.

    That is the cancel that these servers know: they stop working on it.
    """

    contract = 1
    unsupported: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[Cards]  # of the plugin, for what check() says of them

    def __init__(self) -> None:
        self._client: Client | None = None
        self._connection: Connection | None = None
        self._remedies: Remedies | None = None

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
        client = self._client = Client(settings)

        async def again() -> Connection:
            return await connect(client, self.settings(), model, tokenizer, self.choose)

        self._connection = await connect(client, settings, model, tokenizer, self.choose)
        self._remedies = Remedies(client, self.settings, again)

    async def _connect(self, settings: Settings) -> Dialect:
        self._client = Client(settings)
        return await probe(self._client, settings)

    async def check(self) -> str:
        """The server's kind, version, models, and how they are spoken to. Raises ServerError."""
        settings = self.settings()
        server = await self._connect(settings)
        try:
            served, version = await server.models(), ""
            with suppress(Refused):  # an older one may have no such path
                version = clean(await server.version())
            name = " ".join(filter(None, (server.name, version)))
            about = [f"{name} at {settings.address.origin}"]
            about.append(listed([m.name for m in served]))
            about += await cards_of(self.models, server, served, self.choose, settings)
        except Refused as error:
            raise advised(error, settings, server.name) from error
        return "; ".join([*about, *(["key accepted"] if settings.key else [])])

    async def names(self) -> list[Served]:
        """What the server serves. Raises ServerError."""
        settings = self.settings()
        try:
            return await (await self._connect(settings)).models()
        except Refused as error:
            raise advised(error, settings) from error

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises ServerError or RequestError, never ends without saying why."""
        remedies = self._remedies
        if remedies is None or self._connection is None:
            raise ServerError("no model is loaded")
        patience = Patience(self._connection.settings.busy_seconds)
        tried, most, limit, started = set[str](), None, None, False
        while True:
            connection = self._connection
            sent = connection.request(request, await self.messages(request), most)
            connection.say_what_is_missing(sent)
            try:
                async with aclosing(self._pieces(connection, sent)) as pieces:
                    async for piece in pieces:
                        if limit and not started:
                            connection.limit = limit
                        started = True
                        yield piece
                return
            except (Refused, BrokenOffError) as error:
                remedy = None if started else await remedies.find(error, connection, sent, tried)
                if remedy is None:
                    seconds = None if started else patience.wait(error)
                    if seconds is None:
                        raise self._final(error, connection) from error
                    await asyncio.sleep(seconds)
                else:
                    most, limit = remedy.most or most, remedy.limit or limit
                    self._connection = remedy.connection or self._connection

    def _final(self, error: ServerError, connection: Connection) -> Exception:
        """The sentence on an error that nothing helps against."""
        if isinstance(error, Refused):
            return advised(error, connection.settings, connection.server.name)
        return ServerError(connection.server.client.settings.without_secrets(str(error)))

    async def _pieces(
        self, connection: Connection, request: ServerRequest
    ) -> AsyncGenerator[Piece, None]:
        """One try, its pieces up to the first that ends the answer."""
        name, seconds = connection.settings.address.origin, connection.settings.silence_seconds
        cut = Cut(connection.tokenizer, connection.kind(request) == "ids", request.max_tokens)
        usage: Usage | None = None
        async with (
            aclosing(connection.stream(request)) as stream,
            aclosing(in_time(stream, _is_filled, seconds, name)) as filled,
        ):
            async for piece in filled:
                usage = piece.usage or usage
                piece = cut.feed(piece)
                if not piece.finish:
                    if piece.ids or piece.text:
                        yield piece
                    continue
                if not cut.started:
                    raise RequestError(_NO_WORD)
                with suppress(TimeoutError, ServerError):
                    async with asyncio.timeout(END_SECONDS):
                        async for rest in stream:
                            usage = rest.usage or usage
                yield replace(piece, usage=usage)
                return
        raise ServerError(_CUT if cut.started else _EMPTY)

    async def close(self) -> None:
        """End every connection, and with it what is still being answered."""
        self._connection = None
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _is_filled(piece: Piece) -> bool:
    """Whether a piece has something: an event without is no sign of life."""
    return bool(piece.ids or piece.text or piece.finish or piece.usage)
