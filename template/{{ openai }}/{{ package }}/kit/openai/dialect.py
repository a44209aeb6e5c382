"""How any OpenAI-compatible server is spoken to, and what is asked of it."""

import logging
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from ..contract import Finish, Messages, Piece, Sampling, Usage
from ..server.choices import Calls, finish_of, spoken
from ..server.client import Client, Reply
from ..server.events import Event, events, number, numbers, part, parts, text
from ..server.models import Served
from .logprobs import of_completion

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USAGE = "stream_options"
COLDEST = 0.01  # a temperature at which next to nothing but the most likely token comes
_LIMIT = "max_completion_tokens"  # OpenAI's newer name
_INSTEAD = re.compile(r"instead|unsupported|not supported", re.IGNORECASE)

NEUTRAL = Sampling()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerRequest:
    """What a server is asked for. max_tokens: of the answer; end_ids: the ids that end it."""

    model: str
    prompt: str
    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = NEUTRAL
    end_ids: tuple[int, ...] = ()
    messages: Messages | None = None
    tools: list[dict[str, Any]] | None = None
    thinking: bool | None = None


class Dialect:
    """A server of which nothing is known but OpenAI's API: text, and chat. Raises ServerError.

    id_fields: fields of a request by which the server gives the answer's ids, the best first; none
    where it gives no ids. names: what it calls a field otherwise than the contract. neutral: fields
    that it takes for something else where they are left out.
    """

    name: ClassVar[str] = "openai"
    id_fields: ClassVar[tuple[Event, ...]] = ()
    names: ClassVar[dict[str, str]] = {}
    neutral: ClassVar[Event] = {}
    stops_by_ids: ClassVar[bool] = False
    as_it_is: ClassVar[Event] = {}  # keeps the server from putting a BOS before a text

    def __init__(self, client: Client, seconds: float) -> None:
        self.client = client
        self.refused = set[str]()  # fields that it does not take
        self._limit = "max_tokens"  # what it calls that
        self._coldest = 0.0  # what it takes for a temperature of 0
        self._seconds = seconds

    async def version(self) -> str:
        """The server's version, or nothing where it tells none."""
        return ""

    async def models(self) -> list[Served]:
        """What it serves, in its own names."""
        reply = await self._get("/v1/models")
        return [served(m) for m in parts(reply, "data") if text(m, "id")]

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        """A text's ids by the server's tokenizer; None where it can't be asked."""
        return None

    async def ids(self, request: ServerRequest, fields: Event) -> AsyncGenerator[Piece, None]:
        """An answer in ids to a prompt in ids; fields: those of id_fields that it understands."""
        body = self._body(request) | {"prompt": list(request.ids)} | fields
        most = request.sampling.logprobs
        async with aclosing(
            events(self.client, COMPLETIONS, body | self._logprobs(most))
        ) as stream:
            async for event in stream:
                for choice in parts(event, "choices"):
                    logprobs = () if most is None else of_completion(choice, most)
                    ids, finish = tuple(ids_of(choice)), finish_of(choice)
                    yield Piece(ids=ids, finish=finish, logprobs=logprobs)
                if last := _behind(event):
                    yield last

    async def text(
        self, request: ServerRequest, in_ids: bool = False
    ) -> AsyncGenerator[Piece, None]:
        """An answer in text to a prompt in text, or in ids."""
        prompt = list(request.ids) if in_ids else request.prompt
        body = self._body(request) | {"prompt": prompt} | ({} if in_ids else self.as_it_is)
        async with aclosing(events(self.client, COMPLETIONS, body)) as stream:
            async for event in stream:
                for choice in parts(event, "choices"):
                    for piece in _pieces(choice):
                        yield piece
                if last := _behind(event):
                    yield last

    async def chat(self, request: ServerRequest) -> AsyncGenerator[Piece, None]:
        """An answer to messages, which the server puts into its template."""
        body = self._body(request, by_ids=False) | {"messages": request.messages}
        more: Event = {"tools": request.tools} if request.tools else {}
        if request.thinking is not None:
            more["chat_template_kwargs"] = {"enable_thinking": request.thinking}
        calls = Calls()
        async with aclosing(events(self.client, CHAT, body | self._taken(more))) as stream:
            async for event in stream:
                for choice in parts(event, "choices"):
                    calls.feed(choice)
                    for piece in _pieces(choice, calls):
                        yield piece
                if last := _behind(event, calls):
                    yield last

    async def token_count(self, model: str, prompt: str) -> int | None:
        """How many tokens the server makes of a text; None where it doesn't say."""
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        reply = await self._get(COMPLETIONS, body | self.as_it_is)
        return number(part(reply, "usage").get("prompt_tokens"))

    def refuse(self, words: str, request: ServerRequest) -> set[str]:
        """The fields that the server's words refuse: they are left out from now on, and said once.

        Where it names none, the one that only asks for its counts. A limit or a temperature of 0
        can't be left out: they get another name, and the smallest value.
        """
        if renames(words) and self._limit != _LIMIT:
            self._limit = _LIMIT
            return {"max_tokens"}
        if _names("temperature", words) and not (request.sampling.temperature or self._coldest):
            self._coldest = COLDEST
            _log.warning("%s takes no temperature of 0: %s is sent", self.name, COLDEST)
            return {"temperature"}
        optional = self._optional(request).keys() - self.refused
        fields = {field for field in optional if _names(field, words)}
        if fields := fields or optional & {USAGE}:
            self.refused |= fields
            _log.warning(
                "%s does not take %s: they are left out", self.name, ", ".join(sorted(fields))
            )
        return fields

    def _body(self, request: ServerRequest, by_ids: bool = True) -> Event:
        """What every route is sent: what a request leaves neutral is left out, so that a server
        which takes no such value, or no such field, isn't asked for it."""
        stops = {"stop_token_ids": list(request.end_ids)} if by_ids and self.stops_by_ids else {}
        body: Event = {"model": request.model, "stream": True, self._limit: request.max_tokens}
        body |= {"temperature": request.sampling.temperature or self._coldest} | stops
        return body | self._taken({USAGE: {"include_usage": True}} | self.sampling(request))

    def sampling(self, request: ServerRequest) -> Event:
        """The fields of the sampling that depart from neutral, but for the temperature."""
        values, neutral = vars(request.sampling), vars(NEUTRAL)
        names = neutral.keys() - {"logprobs", "temperature"}
        fields = {key: values[key] for key in sorted(names) if values[key] != neutral[key]}
        return self.neutral | {self.names.get(key, key): fields[key] for key in fields}

    def logprob_fields(self, most: int) -> Event:
        """What asks for logprobs beside ids, and those of so many of the likeliest."""
        return {}

    def _logprobs(self, most: int | None) -> Event:
        return {} if most is None else self._taken(self.logprob_fields(most))

    def _optional(self, request: ServerRequest) -> Event:
        """The fields without which an answer is still one."""
        own = self.sampling(request) | self._logprobs(request.sampling.logprobs)
        return {USAGE: None, "chat_template_kwargs": None} | own

    def _taken(self, fields: Event) -> Event:
        return {key: value for key, value in fields.items() if key not in self.refused}

    async def _get(self, path: str, body: Any = None) -> Event:
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


def renames(words: str) -> bool:
    """Whether a refusal is about the name of the limit, not about its value."""
    return _LIMIT in words and _INSTEAD.search(words) is not None


def _names(field: str, words: str) -> bool:
    """Whether a refusal names a field."""
    return re.search(rf"\b{re.escape(field)}\b", words) is not None


def _pieces(choice: Event, calls: Calls | None = None) -> Iterable[Piece]:
    """What a choice adds to an answer: reasoning, text, and why it ends."""
    reasoning, content = spoken(choice)
    finish = finish_of(choice)
    if reasoning:
        yield Piece(reasoning, thinking=True)
    if finish:
        yield _last(content, finish, calls)
    elif content:
        yield Piece(content)


def _last(content: str, finish: Finish, calls: Calls | None) -> Piece:
    whole = calls.whole() if calls else ()
    return Piece(content, tool_calls=whole, finish="tool_calls" if whole else finish)


def _behind(event: Event, calls: Calls | None = None) -> Piece | None:
    """What an event has beside its choices: the server's counts, or the end of the stream."""
    if not event:
        return _last("", "stop", calls)
    usage = usage_of(part(event, "usage"))
    return Piece(usage=usage) if usage else None


def usage_of(usage: Event) -> Usage | None:
    """A server's counts, where it gives them."""
    prompt, completion = number(usage.get("prompt_tokens")), number(usage.get("completion_tokens"))
    if not prompt or completion is None:
        return None
    reused = number(part(usage, "prompt_tokens_details").get("cached_tokens")) or 0
    reasoning = number(part(usage, "completion_tokens_details").get("reasoning_tokens"))
    reasoning = reasoning or number(usage.get("reasoning_tokens")) or 0  # SGLang's place
    return Usage(prompt, completion, reused, reasoning)


def served(model: Event) -> Served:
    """A line of /v1/models: vLLM and SGLang say max_model_len, llama.cpp meta.n_ctx."""
    context = number(model.get("max_model_len")) or number(part(model, "meta").get("n_ctx"))
    return Served(text(model, "id"), context, text(model, "root"))


def ids_of(choice: Event) -> list[int]:
    """A chunk's own ids, in their field or in the logprobs' names of tokens."""
    if ids := numbers(choice.get("token_ids")):
        return ids
    names = part(choice, "logprobs").get("tokens")
    if not isinstance(names, list):
        return []
    digits = [str(name).removeprefix("token_id:") for name in names]
    return [int(i) for i in digits if i.isascii() and i.isdigit() and len(i) < 10]
