"""A backend over an RKLLM server: one answer at a time, each read to its end."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ..cards import Model
from ..contract import Messages, Piece, Request
from ..server.address import clean
from ..server.client import Client, ServerError
from ..server.models import Served, choose_model, listed
from ..text.tokenizer import Tokenizer
from .answer import Answer
from .dialect import Dialect, Question
from .probe import probe
from .settings import Settings

CLOSE_SECONDS = 0.2  # for the end of an answer that is nearly there, and once more for unloading


class Left(Enum):
    """What the last answer left at the server for the next one."""

    NOTHING = "nothing"
    REST = "a rest"  # its limit ended the answer: the last chunk may open the next
    BROKEN = "broken"  # the answer was cut


@dataclass(eq=False)
class Exchange:
    """One answer: a task of its own reads it, so that who leaves it cuts nothing."""

    request: Request
    messages: Messages
    answer: Answer
    pieces: "asyncio.Queue[Piece | Exception]" = field(default_factory=asyncio.Queue)
    task: "asyncio.Task[None] | None" = None
    begun: bool = False  # its turn at the server has come


class RkllmBackend:
    """An AnswerBackend (kit/contract.py) over the servers of a Rockchip NPU.

    Such a server takes one request at a time and knows no cancel: whatever it still makes of an
    answer that its host has left is read and dropped, for a bounded time, while the next one waits.
    """

    contract = 1

    def __init__(self) -> None:
        self._client: Client | None = None
        self._server: Dialect | None = None
        self._model = ""
        self._drain = 0.0
        self._turn = asyncio.Lock()
        self._left = Left.NOTHING
        self._exchanges: set[Exchange] = set()

    def settings(self) -> Settings:
        """Where the server is. Raises SettingError."""
        return Settings.from_env(os.environ)

    def choose(self, model: Model, names: list[str], settings: Settings) -> str:
        """The server's name for a model. Raises ServerError."""
        return choose_model(model, names, settings.model, "RKLLM_MODEL")

    async def messages(self, request: Request) -> Messages:
        """What the server is sent for a request."""
        return request.conversation()

    async def load(self, model: Model, folder: Path | None, tokenizer: Tokenizer) -> None:
        """Find the server's model for this one and load it there. Raises ServerError."""
        await self.close()
        settings = self.settings()
        server = await self._connect(settings)
        self._model = self.choose(model, await server.models(), settings)
        self._drain = settings.drain_seconds
        await server.load(self._model)
        self._server, self._left = server, Left.NOTHING

    async def _connect(self, settings: Settings) -> Dialect:
        self._client = Client(settings)
        return await probe(self._client, settings)

    async def check(self) -> str:
        """The server's kind, version and models. Raises ServerError."""
        settings = self.settings()
        server = await self._connect(settings)
        named = " ".join(filter(None, (server.name, clean(await server.version()))))
        return f"{named} at {settings.address.shown}: {listed(await server.models())}"

    async def names(self) -> list[Served]:
        """What the server has. Raises ServerError."""
        return [Served(name) for name in await (await self._connect(self.settings())).models()]

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises ServerError, never ends without a piece that says why."""
        if self._server is None:
            raise ServerError("no model is loaded")
        messages = await self.messages(request)
        limit = request.max_tokens
        exchange = Exchange(request, messages, Answer(limit, limit + self._server.spare))
        exchange.task = asyncio.create_task(self._exchange(self._server, exchange))
        self._exchanges.add(exchange)
        exchange.task.add_done_callback(lambda _: self._exchanges.discard(exchange))
        try:
            while True:
                piece = await exchange.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        """What the server still sends is read and dropped for a while, then cut."""
        task = exchange.task
        if task is None or not exchange.begun:
            if task is not None:
                task.cancel()
        elif not task.done():
            timer = asyncio.get_running_loop().call_later(self._drain, task.cancel)
            task.add_done_callback(lambda _: timer.cancel())

    async def _exchange(self, server: Dialect, exchange: Exchange) -> None:
        """Read one answer to its end, when its turn has come."""
        try:
            async with self._turn:
                exchange.begun = True
                await self._tidy(server)
                await self._read(server, exchange)
        except asyncio.CancelledError:
            exchange.pieces.put_nowait(ServerError("this answer was cut"))
            raise
        except Exception as error:
            exchange.pieces.put_nowait(error)

    async def _tidy(self, server: Dialect) -> None:
        """Make sure that the last answer has nothing to do with the next."""
        left, self._left = self._left, Left.BROKEN  # until this has come to its end
        if left is Left.BROKEN:
            await server.recover(self._model)
        elif left is Left.REST:
            await server.settle(self._model)

    async def _read(self, server: Dialect, exchange: Exchange) -> None:
        request, answer = exchange.request, exchange.answer
        question = Question(
            self._model,
            exchange.messages,
            request.max_tokens + server.spare,
            request.sampling.temperature,
            request.sampling.top_p,
        )
        async with aclosing(server.stream(question)) as chunks:
            async for chunk in chunks:
                for piece in answer.feed(chunk):
                    exchange.pieces.put_nowait(piece)
        for piece in answer.end(server.ends_with_event):
            exchange.pieces.put_nowait(piece)
        self._left = Left.REST if answer.ran_out else Left.NOTHING

    async def close(self) -> None:
        """Cut what is still being read; an answer that is nearly there may end.

        The server keeps its model, unless an answer was cut: that would be its next client's.
        """
        ending = [e.task for e in self._exchanges if e.task and e.answer.over]
        if ending:
            await asyncio.wait(ending, timeout=CLOSE_SECONDS)
        tasks = [e.task for e in self._exchanges if e.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server, self._server = self._server, None
        if server is not None and self._left is Left.BROKEN:
            # The next client's load finds out what this one had no time for.
            with suppress(TimeoutError, ServerError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await server.unload(self._model)
        client, self._client = self._client, None
        if client is not None:
            await client.close()
