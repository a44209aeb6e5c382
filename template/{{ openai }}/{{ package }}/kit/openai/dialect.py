"""How any OpenAI-compatible server is spoken to, and what is asked of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..contract import Messages, Piece
from ..server.client import Client, Reply, ServerError
from ..server.events import Event, events, number, numbers, part, parts, spoken, text
from ..server.models import Served

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
Finish = Literal["stop", "length"] | None


@dataclass(frozen=True)
class Question:
    """What an answer is asked for. ends: the ids that end it."""

    model: str
    prompt: str
    ids: tuple[int, ...]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    ends: tuple[int, ...] = ()

    def sampling(self) -> Event:
        """What is sent always: servers have other defaults, each its own."""
        return {
            "max_tokens": self.limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }


class Dialect:
    """A server of which nothing is known but OpenAI's API: text, and chat. Raises ServerError.

    ways: fields of a request by which the server gives the answer's ids, the best first; none
    where it gives no ids. Fields that a server doesn't know are never sent to one that minds.
    """

    name: ClassVar[str] = "openai"
    ways: ClassVar[tuple[Event, ...]] = ()
    stops_by_ids: ClassVar[bool] = False
    as_it_is: ClassVar[Event] = {}  # keeps the server from putting a BOS before a text

    def __init__(self, client: Client, seconds: float) -> None:
        self.client = client
        self._seconds = seconds

    async def version(self) -> str:
        """The server's version, or nothing where it tells none."""
        return ""

    async def models(self) -> list[Served]:
        """What it serves, in its own names."""
        told = await self._told("/v1/models")
        return [served(m) for m in parts(told, "data") if text(m, "id")]

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        """A text's ids by the server's tokenizer; None where it can't be asked."""
        return None

    async def ids(self, question: Question, way: Event) -> AsyncGenerator[Piece, None]:
        """An answer in ids, asked in ids."""
        body = self._body(question) | {"prompt": list(question.ids)} | way
        async with aclosing(events(self.client, COMPLETIONS, body)) as told:
            async for found in told:
                for choice in parts(found, "choices"):
                    yield Piece(ids=tuple(ids_of(choice)), finish=finish_of(choice))
                if not found:
                    yield Piece(finish="stop")

    async def text(self, question: Question, in_ids: bool = False) -> AsyncGenerator[Piece, None]:
        """An answer in text, asked in text."""
        prompt = list(question.ids) if in_ids else question.prompt
        body = self._body(question) | {"prompt": prompt} | ({} if in_ids else self.as_it_is)
        async with aclosing(events(self.client, COMPLETIONS, body)) as told:
            async for found in told:
                for choice in parts(found, "choices"):
                    yield Piece(text(choice, "text"), finish=finish_of(choice))
                if not found:
                    yield Piece(finish="stop")

    async def chat(self, question: Question, messages: Messages) -> AsyncGenerator[Piece, None]:
        """An answer to messages, which the server puts into its template."""
        body: Event = self._body(question, by_ids=False) | {"messages": messages}
        async with aclosing(events(self.client, CHAT, body)) as told:
            async for found in told:
                for choice in parts(found, "choices"):
                    thought, said = spoken(choice)
                    if thought:
                        yield Piece(thought, thinking=True)
                    if said or choice.get("finish_reason"):
                        yield Piece(said, finish=finish_of(choice))
                if not found:
                    yield Piece(finish="stop")

    async def counted(self, model: str, prompt: str) -> int | None:
        """How many tokens the server makes of a text; None where it doesn't say."""
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        told = await self._told(COMPLETIONS, body | self.as_it_is)
        return number(part(told, "usage").get("prompt_tokens"))

    def _body(self, question: Question, by_ids: bool = True) -> Event:
        stops = {"stop_token_ids": list(question.ends)} if by_ids and self.stops_by_ids else {}
        return {"model": question.model, "stream": True} | question.sampling() | stops

    async def _told(self, path: str, body: Any = None) -> Event:
        """A JSON object of the server's. Raises Refused."""
        reply = await self.reply(path, body)
        if reply.status != 200 or not isinstance(reply.json, dict) or reply.json.get("error"):
            raise self.client.refused(path, reply)
        return reply.json

    async def reply(self, path: str, body: Any = None) -> Reply:
        """A whole reply, whatever its status."""
        if body is None:
            return await self.client.get(path)
        return await self.client.post(path, body, self._seconds)


def served(model: Event) -> Served:
    """A line of /v1/models: vLLM and SGLang say max_model_len, llama.cpp meta.n_ctx."""
    context = number(model.get("max_model_len")) or number(part(model, "meta").get("n_ctx"))
    return Served(text(model, "id"), context, text(model, "root"))


def ids_of(choice: Event) -> list[int]:
    """A chunk's own ids, in their field or in the logprobs' names of tokens."""
    if found := numbers(choice.get("token_ids")):
        return found
    names = part(choice, "logprobs").get("tokens")
    if not isinstance(names, list):
        return []
    ids = [str(name).removeprefix("token_id:") for name in names]
    return [int(i) for i in ids if i.isascii() and i.isdigit()]


def finish_of(choice: Event) -> Finish:
    """Why a choice ended, if it did. Raises ServerError where that was no end of its own."""
    reason = choice.get("finish_reason")
    if reason in ("abort", "error"):
        raise ServerError(f"the server broke the answer off ({reason}); see its log")
    if not reason:
        return None
    return "length" if reason == "length" else "stop"
