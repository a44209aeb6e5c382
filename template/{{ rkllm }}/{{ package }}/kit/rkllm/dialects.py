"""The three kinds of server: what to ask, and how their streams read."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..contract import Messages
from ..server.client import ServerError
from ..server.events import event, events, number, part, parts, spoken, text
from .dialect import Chunk, Dialect, Question

ALIVE_SECONDS = 30.0  # enough for the short question
_SHORT: Messages = [{"role": "user", "content": "Say OK."}]
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

    async def stream(self, question: Question) -> AsyncGenerator[Chunk, None]:
        body = {"messages": alternating(question.messages), "stream": True}
        async with aclosing(self._client.lines("/generate", body)) as lines:
            async for line in lines:
                found = event(line)
                count = part(found, "usage").get("completion_tokens")
                for choice in parts(found, "choices"):
                    yield Chunk(text(choice, "content"), count=number(count))


class Rkllama(Dialect):
    """NotPunchnox/rkllama: Ollama's chat, newline-delimited JSON."""

    name = "rkllama"
    spare = 2

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
        count = None
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                async with aclosing(self.stream(Question(model, _SHORT, _SHORT_LIMIT))) as chunks:
                    async for chunk in chunks:
                        count = chunk.count if chunk.final else None
        except (TimeoutError, ServerError):
            count = None
        if count is None or not 0 < count < _SHORT_LIMIT:
            await self.recover(model)

    async def recover(self, model: str) -> None:
        """A cut stream kills the model's worker; unloading and loading makes a new one."""
        await self.unload(model)
        await self._ask("/load_model", {"model_name": model})

    async def unload(self, model: str) -> None:
        await self._reply("/unload_model", {"model_name": model})

    async def stream(self, question: Question) -> AsyncGenerator[Chunk, None]:
        options: dict[str, float] = {
            "num_predict": question.limit,
            "temperature": question.temperature,
            "top_p": question.top_p,
        }
        if not question.temperature:
            options["top_k"] = 1  # the best token, whatever a runtime makes of temperature 0
        body = {
            "model": question.model,
            "messages": question.messages,
            "stream": True,
            "think": False,
            "options": options,
        }
        async with aclosing(self._client.lines("/api/chat", body)) as lines:
            async for line in lines:
                found = event(line)
                message = part(found, "message")
                if thought := text(message, "thinking"):
                    yield Chunk(thought, thinking=True)
                final = bool(found.get("done"))
                count = number(found.get("eval_count")) if final else None
                yield Chunk(text(message, "content"), final=final, count=count)


class OpenAI(Dialect):
    """Any OpenAI-compatible server: server-sent events."""

    name = "openai"

    async def version(self) -> str:
        return ""

    async def models(self) -> list[str]:
        return _names((await self._ask("/v1/models")).json, "data")

    async def stream(self, question: Question) -> AsyncGenerator[Chunk, None]:
        body = {
            "model": question.model,
            "messages": question.messages,
            "stream": True,
            "max_tokens": question.limit,
            "temperature": question.temperature,
            "top_p": question.top_p,
        }
        ended, length, count = False, False, None
        async with aclosing(events(self._client, "/v1/chat/completions", body)) as told:
            async for found in told:
                ended = ended or not found
                count = number(part(found, "usage").get("completion_tokens")) or count
                for choice in parts(found, "choices"):
                    ended = ended or bool(choice.get("finish_reason"))
                    length = length or choice.get("finish_reason") == "length"
                    thought, said = spoken(choice)
                    if thought:
                        yield Chunk(thought, thinking=True)
                    if said:
                        yield Chunk(said)
        if ended:
            yield Chunk(final=True, count=count, length=length)


def alternating(messages: Messages) -> Messages:
    """For legacy: the system text in the first user message, neighbours of one role merged."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    folded: Messages = []
    for message in messages:
        if message["role"] == "system":
            continue
        if folded and folded[-1]["role"] == message["role"]:
            folded[-1]["content"] += f"\n\n{message['content']}"
        else:
            folded.append(dict(message))
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
