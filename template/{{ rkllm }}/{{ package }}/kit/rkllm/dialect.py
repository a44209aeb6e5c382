"""How a server is spoken to: what each of the three kinds has to say for itself."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..contract import Messages, Sampling, ToolCall
from ..server.client import Client, Reply

NEUTRAL = Sampling()


@dataclass(frozen=True)
class ServerRequest:
    """What a server is asked for; max_tokens: as the server counts them."""

    model: str
    messages: Messages
    max_tokens: int
    sampling: Sampling = NEUTRAL
    tools: list[dict[str, Any]] | None = None


@dataclass(slots=True)  # frozen ones take three times as long to make
class Chunk:
    """A piece of an answer; count is the server's own number of tokens, where it tells.

    prompt: and that of the prompt's. length: the server says that its limit ended the answer.
    calls: of tools, whole ones.
    """

    text: str = ""
    thinking: bool = False
    final: bool = False
    count: int | None = None
    length: bool = False
    prompt: int | None = None
    calls: tuple[ToolCall, ...] = ()


class Dialect(ABC):
    """How one kind of server is spoken to. Every method raises ServerError.

    spare: how many tokens more than the host wants are asked for. A server may lose the last chunk
    of an answer that its limit ends, so that one must not be of those that the host wants.
    counts_chunks: its count of an answer's tokens is of all that it streams. takes_tools: it puts
    a request's tools into the prompt.
    """

    name: ClassVar[str]
    ends_with_event: ClassVar[bool] = True
    counts_chunks: ClassVar[bool] = False
    spare: ClassVar[int] = 0
    takes_tools: ClassVar[bool] = False

    def __init__(self, client: Client, load_seconds: float) -> None:
        self._client = client
        self._load_seconds = load_seconds

    @abstractmethod
    async def version(self) -> str:
        """The server's version, or nothing where it tells none."""

    @abstractmethod
    async def models(self) -> list[str]:
        """What it can load, in its own names."""

    async def load(self, model: str) -> None:  # noqa: B027 - a server that loads by itself
        """Have the model ready."""

    async def settle(self, model: str) -> None:  # noqa: B027 - a server that keeps nothing
        """After an answer that the limit ended: drop what it may have left to open the next."""

    async def recover(self, model: str) -> None:  # noqa: B027 - a server that needs none
        """After a cut answer: make sure that the next one is whole and its own."""

    async def unload(self, model: str) -> None:  # noqa: B027 - a server that needs none
        """After a cut answer that nothing follows."""

    @abstractmethod
    def stream(self, request: ServerRequest) -> AsyncGenerator[Chunk, None]:
        """One answer."""

    async def _ask(self, path: str, body: Any = None) -> Reply:
        reply = await self._reply(path, body)
        if reply.status != 200 or not isinstance(reply.json, dict):
            raise self._client.refused(path, reply)
        error = str(reply.json.get("error") or "")
        if error and "already loaded. Nothing" not in error:
            raise self._client.refused(path, reply)
        return reply

    async def _reply(self, path: str, body: Any = None) -> Reply:
        if body is None:
            return await self._client.get(path)
        return await self._client.post(path, body, self._load_seconds)
