"""A backend over an RKLLM server: one answer at a time, each read to its end."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import Enum
from pathlib import Path

from ..cards import Model
from ..contract import Messages, Piece, Request, RequestError
from ..server.address import clean
from ..server.client import Client, ServerError
from ..server.events import in_time
from ..server.models import Served, choose_model, listed
from ..text.tokenizer import Tokenizer
from .answer import Answer, SharedError
from .dialect import Chunk, Dialect, ServerRequest
from .probe import probe
from .settings import Settings

MOST_WAITING = 256  # chunks that nobody has taken yet; then the server waits
CLOSE_SECONDS = 0.2  # for the end of an answer that is nearly there, and once more for unloading

_log = logging.getLogger(__name__)


class Remains(Enum):
    """What the last answer left at the server for the next one."""

    NOTHING = "nothing"
    REST = "a rest"  # its limit ended the answer: the last chunk may open the next
    BROKEN = "broken"  # the answer was cut


class Stream:
    """One answer at the server: a task of its own reads it, so that who leaves it cuts nothing.

    failed: reading it raised. ended: its last chunk was taken.
    """

    def __init__(self, answer: Answer, chunks: AsyncGenerator[Chunk, None]) -> None:
        self.answer = answer
        self.failed = self.ended = False
        self._chunks = deque[Chunk]()
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._read(chunks))
        self._task.add_done_callback(lambda _: self._came.set())

    async def _read(self, chunks: AsyncGenerator[Chunk, None]) -> None:
        async with aclosing(chunks):
            async for chunk in chunks:
                self._chunks.append(chunk)
                self._came.set()
                while len(self._chunks) >= MOST_WAITING:
                    self._taken.clear()
                    await self._taken.wait()

    async def next(self) -> Chunk | None:
        """The next chunk, None at the end. Raises ServerError."""
        while not self._chunks:
            if self._task.done():
                self._task.result()
                self.ended = True
                return None
            self._came.clear()
            await self._came.wait()
        self._taken.set()
        return self._chunks.popleft()

    async def close(self) -> None:
        """Cut it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class ServerBackend:
    """An AnswerBackend (kit/contract.py) over the servers of a Rockchip NPU.

    Such a server takes one request at a time and knows no cancel: whatever it still makes of an
    answer that its host has left is read and dropped, for a bounded time, while the next one waits.
    """

    contract = 1

    def __init__(self) -> None:
        self._client: Client | None = None
        self._server: Dialect | None = None
        self._model = ""
        self._settings: Settings | None = None
        self._turn = asyncio.Lock()
        self._remains = Remains.NOTHING
        self._shared = False
        self._writes_tools = False  # the model's chat template
        self._drains: dict[asyncio.Task[None], Answer] = {}

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
        await server.load(self._model)
        self._writes_tools = "tools" in (tokenizer.chat_template or "")
        self._server, self._settings, self._remains = server, settings, Remains.NOTHING

    async def _connect(self, settings: Settings) -> Dialect:
        self._client = Client(settings)
        return await probe(self._client, settings)

    async def check(self) -> str:
        """The server's kind, version and models. Raises ServerError."""
        settings = self.settings()
        server = await self._connect(settings)
        named = " ".join(filter(None, (server.name, clean(await server.version()))))
        return f"{named} at {settings.address.origin}: {listed(await server.models())}"

    async def names(self) -> list[Served]:
        """What the server has. Raises ServerError."""
        return [Served(name) for name in await (await self._connect(self.settings())).models()]

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """One answer. Raises ServerError, never ends without a piece that says why."""
        server, settings = self._server, self._settings
        if server is None or settings is None:
            raise ServerError("no model is loaded")
        if request.tools:
            self._refuse_tools(server)
        most, messages = request.max_tokens, await self.messages(request)
        limit = most + server.spare
        sent = ServerRequest(self._model, messages, limit, request.sampling, request.tools)
        await self._turn.acquire()
        answer = Answer(most, sent.max_tokens)
        stream = Stream(answer, self._chunks(server, settings, sent))
        try:
            while not answer.over and (chunk := await stream.next()) is not None:
                for piece in answer.feed(chunk):
                    yield piece
            if not answer.over:
                last = answer.end(server)
                self._after(answer)
                yield last
        except Exception as error:
            stream.failed = True
            self._warn(error)
            raise
        finally:
            if stream.ended:
                self._turn.release()
            else:  # a server knows no cancel: what it still sends is in the next answer's way
                drain = asyncio.create_task(self._drained(server, settings, stream))
                self._drains[drain] = answer
                drain.add_done_callback(self._drains.pop)

    def _refuse_tools(self, server: Dialect) -> None:
        """Raise RequestError where the server would drop a request's tools without a word."""
        if not server.takes_tools:
            raise RequestError(
                f"a server of the kind {server.name} is sent no tools, as it may not read them: "
                "send the request without, or use rkllama, the runtime in the process, or a plugin "
                "of the variant openai"
            )
        if not self._writes_tools:
            raise RequestError(
                "the model's chat template takes no tools, and rkllama writes them by it: send the "
                "request without, or to another model"
            )

    async def _chunks(
        self, server: Dialect, settings: Settings, request: ServerRequest
    ) -> AsyncGenerator[Chunk, None]:
        """The server's chunks, behind what makes sure that they are this answer's alone."""
        remains, self._remains = self._remains, Remains.BROKEN  # until this has come to its end
        if remains is Remains.BROKEN:
            await server.models()  # one that hangs is told in seconds; a load may take minutes
            await server.recover(self._model)
        elif remains is Remains.REST or self._shared:
            await server.settle(self._model)
        async with aclosing(server.stream(request)) as stream:
            name, seconds = settings.address.origin, settings.silence_seconds
            async with aclosing(in_time(stream, _is_filled, seconds, name)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _after(self, answer: Answer) -> None:
        """An answer has come to its end at the server."""
        self._remains = Remains.REST if answer.ran_out else Remains.NOTHING

    def _warn(self, error: Exception) -> None:
        if isinstance(error, SharedError) and not self._shared:
            self._shared = True
            _log.warning("%s. From now on it is asked a short question before each answer", error)

    async def _drained(self, server: Dialect, settings: Settings, stream: Stream) -> None:
        """Read an answer to its end, but no longer than a setting says; then the next may come."""
        answer = stream.answer
        try:
            async with asyncio.timeout(settings.drain_seconds):
                while not stream.failed and (chunk := await stream.next()) is not None:
                    answer.feed(chunk)
            if not stream.failed and (answer.final or not server.ends_with_event):
                self._after(answer)
        except (TimeoutError, ServerError):
            pass  # it is broken off
        finally:
            try:
                await stream.close()
            finally:  # also where a cancel comes while it is being cut
                self._turn.release()

    async def close(self) -> None:
        """Cut what is still being read; an answer that is nearly there may end.

        The server keeps its model, unless an answer was cut: that would be its next client's.
        """
        await asyncio.sleep(0)  # a drain that is cancelled before it has begun would cut nothing
        if ending := [drain for drain, answer in self._drains.items() if answer.over]:
            await asyncio.wait(ending, timeout=CLOSE_SECONDS)
        drains = list(self._drains)
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        server, self._server = self._server, None
        if server is not None and self._remains is Remains.BROKEN:
            # The next client's load finds out what this one had no time for.
            with suppress(TimeoutError, ServerError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await server.unload(self._model)
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _is_filled(chunk: Chunk) -> bool:
    """Whether a chunk has something: an event without is no sign of life."""
    return bool(chunk.text or chunk.calls) or chunk.final
