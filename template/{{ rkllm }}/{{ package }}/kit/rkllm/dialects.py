"""The three kinds of server: what to ask, and how their streams read."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from ..contract import Messages
from ..server.choices import Calls, finish_of, spoken
from ..server.client import ServerError
from ..server.events import events, json_lines, number, part, parts
from .dialect import NEUTRAL, Chunk, Dialect, ServerRequest

ALIVE_SECONDS = 30.0  # enough for the short question
_SHORT: Messages = [{"role": "user", "content": "Say OK."}]
_OPENAI = {"frequency_penalty", "presence_penalty", "seed", "top_p"}
_OLLAMA = {
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
    "top_k": "top_k",
    "top_p": "top_p",
}
_SHORT_LIMIT = 64  # far more tokens than its answer has


class Legacy(Dialect):
    """jfreed-dev/rkllama: one model at a time, text in one buffer for all requests.

    It samples by the model's own settings, and takes no limit.
    """

    name = "legacy rkllama"
    ends_with_event = False

    async def version(self) -> str:
        return ""

    async def models(self) -> list[str]:
        return _names((await self._ask("/models")).json, "models")

    async def load(self, model: str) -> None:
        current = await self._reply("/current_model")
        loaded = current.json.get("model_name") if isinstance(current.json, dict) else None
        if current.status != 200 or loaded != model:
            if current.status == 200:
                await self._ask("/unload_model", {})
            await self._ask("/load_model", {"model_name": model})
        await self.settle(model)

    async def settle(self, model: str) -> None:
        """Ask for a short answer: what a client that went away left unread opens it."""
        await self._ask("/generate", {"messages": _SHORT, "stream": False})

    async def recover(self, model: str) -> None:
        """Load anew, and drop what the old answer left."""
        await self.unload(model)
        await self._ask("/load_model", {"model_name": model})
        await self.settle(model)

    async def unload(self, model: str) -> None:
        await self._reply("/unload_model", {})

    async def stream(self, request: ServerRequest) -> AsyncGenerator[Chunk, None]:
        body = {"messages": alternating(request.messages), "stream": True}
        async with aclosing(json_lines(self._client, "/generate", body)) as stream:
            async for event in stream:
                count = number(part(event, "usage").get("completion_tokens"))
                for choice in parts(event, "choices"):
                    yield Chunk(spoken(choice)[1], count=count or None)


class Rkllama(Dialect):
    """NotPunchnox/rkllama: Ollama's chat, newline-delimited JSON."""

    name = "rkllama"
    spare = 2
    counts_chunks = True
    takes_tools = True

    async def version(self) -> str:
        return str((await self._ask("/api/version")).json.get("version", ""))

    async def models(self) -> list[str]:
        return _names((await self._ask("/models")).json, "models")

    async def load(self, model: str) -> None:
        reply = await self._ask("/load_model", {"model_name": model})
        if reply.json.get("error"):  # loaded already, for whoever was here before
            await self.settle(model)

    async def settle(self, model: str) -> None:
        """Ask a short question: a worker that a client has killed is silent, and what an answer
        left opens this one. Only where it ends by itself has it left nothing of its own."""
        ended = False
        with suppress(TimeoutError, ServerError):
            async with asyncio.timeout(ALIVE_SECONDS):
                ended = await self._ends(ServerRequest(model, _SHORT, _SHORT_LIMIT))
        if not ended:
            await self.recover(model)

    async def _ends(self, request: ServerRequest) -> bool:
        """Whether an answer has words, and ends before its limit."""
        chunks, ended = 0, False
        async with aclosing(self.stream(request)) as stream:
            async for chunk in stream:
                chunks += bool(chunk.text)
                # Where there is no count: a character of several tokens is one chunk.
                count = chunk.count or 2 * chunks
                ended = chunk.final and 0 < count < request.max_tokens
        return ended

    async def recover(self, model: str) -> None:
        """A cut stream kills the model's worker; unloading and loading makes a new one."""
        await self.unload(model)
        await self._ask("/load_model", {"model_name": model})

    async def unload(self, model: str) -> None:
        await self._reply("/unload_model", {"model_name": model})

    async def stream(self, request: ServerRequest) -> AsyncGenerator[Chunk, None]:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": plain(request.messages),
            "stream": True,
            "think": False,
            "options": _options(request),
        }
        if request.tools:
            body |= {"tools": request.tools, "messages": with_calls(request.messages)}
        calls = Calls()
        async with aclosing(json_lines(self._client, "/api/chat", body)) as stream:
            async for event in stream:
                if part(event, "message").get("tool_calls"):
                    calls.feed(event)
                    yield Chunk(calls=calls.whole())
                    continue
                reasoning, content = spoken(event)
                if reasoning:
                    yield Chunk(reasoning, thinking=True)
                final = bool(event.get("done"))
                # It writes 0 where its runtime gave no count.
                count = number(event.get("eval_count")) or None if final else None
                prompt = number(event.get("prompt_eval_count")) if final else None
                yield Chunk(content, final=final, count=count, prompt=prompt or None)


class OpenAI(Dialect):
    """Any OpenAI-compatible server: server-sent events."""

    name = "openai"

    async def version(self) -> str:
        return ""

    async def models(self) -> list[str]:
        return _names((await self._ask("/v1/models")).json, "data")

    async def stream(self, request: ServerRequest) -> AsyncGenerator[Chunk, None]:
        body = {
            "model": request.model,
            "messages": request.messages,
            "stream": True,
            "max_tokens": request.max_tokens,
            "temperature": request.sampling.temperature,
        }
        body |= {key: value for key, value in _departing(request).items() if key in _OPENAI}
        ended, length, count, prompt = False, False, None, None
        async with aclosing(events(self._client, "/v1/chat/completions", body)) as stream:
            async for event in stream:
                ended = ended or not event
                usage = part(event, "usage")
                count = number(usage.get("completion_tokens")) or count
                prompt = number(usage.get("prompt_tokens")) or prompt
                for choice in parts(event, "choices"):
                    finish = finish_of(choice)
                    ended, length = ended or bool(finish), length or finish == "length"
                    reasoning, content = spoken(choice)
                    if reasoning:
                        yield Chunk(reasoning, thinking=True)
                    if content:
                        yield Chunk(content)
        if ended:
            yield Chunk(final=True, count=count, length=length, prompt=prompt)


def _departing(request: ServerRequest) -> dict[str, Any]:
    """The fields of the sampling that depart from neutral."""
    values, neutral = vars(request.sampling), vars(NEUTRAL)
    return {key: values[key] for key in neutral if values[key] != neutral[key]}


def _options(request: ServerRequest) -> dict[str, Any]:
    """Ollama's names; the runtime has no min_p, and rkllama takes no seed."""
    options = {_OLLAMA[key]: v for key, v in _departing(request).items() if key in _OLLAMA}
    options |= {"num_predict": request.max_tokens, "temperature": request.sampling.temperature}
    if not request.sampling.temperature:
        options["top_k"] = 1  # the best token, whatever a runtime makes of temperature 0
    return options


def plain(messages: Messages) -> Messages:
    """For servers whose messages have a role and a text."""
    return [{"role": str(m.get("role")), "content": spoken({"message": m})[1]} for m in messages]


def with_calls(messages: Messages) -> Messages:
    """The same, with calls of tools, whose arguments are objects: what a chat template writes."""
    made = plain(messages)
    for message, message_sent in zip(made, messages, strict=True):
        calls = []
        for call in parts(message_sent, "tool_calls"):
            function = dict(part(call, "function"))
            if isinstance(arguments := function.get("arguments"), str):
                with suppress(ValueError):
                    function["arguments"] = json.loads(arguments)
            calls.append({"type": "function", "function": function})
        message |= {"tool_calls": calls} if calls else {}
        message |= {"name": message_sent["name"]} if message_sent.get("name") else {}
    return made


def alternating(messages: Messages) -> Messages:
    """For legacy: the system text in the first user message, neighbours of one role merged."""
    texts = plain(messages)
    system = "\n\n".join(m["content"] for m in texts if m["role"] == "system")
    folded: Messages = []
    for message in texts:
        if message["role"] == "system":
            continue
        if folded and folded[-1]["role"] == message["role"]:
            folded[-1]["content"] += f"\n\n{message['content']}"
        else:
            folded.append(message)
    if not system:
        return folded
    if not folded or folded[0]["role"] != "user":
        return [{"role": "user", "content": system}, *folded]
    folded[0]["content"] = f"{system}\n\n{folded[0]['content']}"
    return folded


def _names(reply: Any, key: str) -> list[str]:
    """A server's models: names, or objects with a name or an id."""
    listed = reply.get(key) if isinstance(reply, dict) else None
    if not isinstance(listed, list):
        return []
    named = (m.get("id", m.get("name")) if isinstance(m, dict) else m for m in listed)
    return [name for name in named if isinstance(name, str)]
