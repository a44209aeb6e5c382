"""The three kinds of server: what to ask, and how their streams read."""

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from .client import Client, Reply, ServerError

Messages = list[dict[str, str]]

ALIVE_SECONDS = 30.0  # enough for the first token of a short question
_SHORT: Messages = [{"role": "user", "content": "Say OK."}]
_NO_REPLY = 0  # no status of HTTP


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer; count is the server's own number of tokens, where it tells."""

    text: str
    final: bool = False
    count: int | None = None


class Dialect(ABC):
    """How one kind of server is spoken to. Every method raises ServerError."""

    name: ClassVar[str]
    ends_with_event: ClassVar[bool] = True

    def __init__(self, client: Client) -> None:
        self._client = client

    @abstractmethod
    async def version(self) -> str:
        """The server's version, or nothing where it tells none."""

    @abstractmethod
    async def models(self) -> list[str]:
        """What it can load, in its own names."""

    async def load(self, model: str) -> None:  # noqa: B027 - a server that loads by itself
        """Have the model ready."""

    async def recover(self, model: str) -> None:  # noqa: B027 - a server that needs none
        """After a cut answer: make sure that the next one is whole and its own."""

    @abstractmethod
    def stream(self, model: str, messages: Messages, limit: int) -> AsyncGenerator[Chunk]:
        """One answer of at most limit tokens."""

    async def _ask(self, path: str, body: Any = None) -> Reply:
        reply = await self._reply(path, body)
        if reply.status != 200 or not isinstance(reply.json, dict):
            raise self._refused(path, reply)
        said = str(reply.json.get("error") or "")
        if said and "already loaded. Nothing" not in said:
            raise self._refused(path, reply)
        return reply

    async def _reply(self, path: str, body: Any = None) -> Reply:
        if body is None:
            return await self._client.get(path)
        return await self._client.post(path, body, self._client.settings.load_seconds)

    def _refused(self, path: str, reply: Reply) -> ServerError:
        url = self._client.settings.shown_url
        return ServerError(f"{url}{path} answered {reply.status}: {reply.said()}")


class Legacy(Dialect):
    """jfreed-dev/rkllama: one model at a time, text in one buffer for all requests."""

    name = "legacy rkllama"
    ends_with_event = False

    async def version(self) -> str:
        return ""

    async def models(self) -> list[str]:
        return _names((await self._ask("/models")).json, "models")

    async def load(self, model: str) -> None:
        current = await self._reply("/current_model")
        if current.status == 200 and isinstance(current.json, dict):
            if current.json.get("model_name") == model:
                await self._drop_rest()
                return
            await self._ask("/unload_model", {})
        await self._ask("/load_model", {"model_name": model})

    async def recover(self, model: str) -> None:
        """Load anew, and drop what the old answer left."""
        await self._reply("/unload_model", {})
        await self._ask("/load_model", {"model_name": model})
        await self._drop_rest()

    async def _drop_rest(self) -> None:
        """Ask for a short answer: what a client that went away left unread opens it."""
        await self._ask("/generate", {"messages": _SHORT, "stream": False})

    async def stream(self, model: str, messages: Messages, limit: int) -> AsyncGenerator[Chunk]:
        body = {"messages": alternating(messages), "stream": True}
        async with aclosing(self._client.lines("/generate", body)) as lines:
            async for line in lines:
                event = _event(line)
                count = (event.get("usage") or {}).get("completion_tokens")
                for choice in event.get("choices") or []:
                    yield Chunk(choice.get("content") or "", count=count)


class Rkllama(Dialect):
    """NotPunchnox/rkllama: Ollama's chat, newline-delimited JSON."""

    name = "rkllama"

    async def version(self) -> str:
        return str((await self._ask("/api/version")).json.get("version", ""))

    async def models(self) -> list[str]:
        return _names((await self._ask("/models")).json, "models")

    async def load(self, model: str) -> None:
        """A model that is loaded already may have lost its worker to a client that went away."""
        reply = await self._ask("/load_model", {"model_name": model})
        if not reply.json.get("error"):
            return
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                async with aclosing(self.stream(model, _SHORT, 1)) as chunks:
                    async for _ in chunks:
                        pass
        except (TimeoutError, ServerError):
            await self.recover(model)

    async def recover(self, model: str) -> None:
        """A cut stream kills the model's worker; unloading and loading makes a new one."""
        await self._reply("/unload_model", {"model_name": model})
        await self._ask("/load_model", {"model_name": model})

    async def stream(self, model: str, messages: Messages, limit: int) -> AsyncGenerator[Chunk]:
        body = {
            "model": model,
            "messages": messages,
            "stream": True,
            "think": False,
            "options": {"num_predict": limit},
        }
        async with aclosing(self._client.lines("/api/chat", body)) as lines:
            async for line in lines:
                event = _event(line)
                text = (event.get("message") or {}).get("content") or ""
                if event.get("done"):
                    yield Chunk(text, final=True, count=event.get("eval_count"))
                else:
                    yield Chunk(text)


class OpenAI(Dialect):
    """Any OpenAI-compatible server: server-sent events."""

    name = "openai"

    async def version(self) -> str:
        return ""

    async def models(self) -> list[str]:
        models = (await self._ask("/v1/models")).json.get("data", [])
        return [m["id"] for m in models if isinstance(m, dict) and "id" in m]

    async def stream(self, model: str, messages: Messages, limit: int) -> AsyncGenerator[Chunk]:
        body = {"model": model, "messages": messages, "stream": True, "max_tokens": limit}
        ended, count = False, None
        async with aclosing(self._client.lines("/v1/chat/completions", body)) as lines:
            async for line in lines:
                data = line.strip().removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    ended = True
                if not data.startswith(b"{"):
                    continue
                event = _event(data)
                if usage := event.get("usage"):
                    count = usage.get("completion_tokens")
                for choice in event.get("choices") or []:
                    ended = ended or bool(choice.get("finish_reason"))
                    if text := (choice.get("delta") or {}).get("content"):
                        yield Chunk(text)
        if ended:
            yield Chunk("", final=True, count=count)


_KINDS: dict[str, Callable[[Client], Dialect]] = {
    "legacy": Legacy,
    "rkllama": Rkllama,
    "openai": OpenAI,
}


# After a model's name these words make it another model.
_OTHER_MODEL = re.compile(
    r"(^|-)(2507|audio|base|chat|coder|embedding|instruct|math|omni|reranker|thinking|vl)(-|$)"
)


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


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise ServerError(f"the server's stream has no JSON: {line[:200]!r}") from error
    if not isinstance(event, dict) or event.get("error"):
        said = Reply(200, event, line.decode("utf-8", "replace")).said()
        raise ServerError(f"the server broke the answer off: {said}")
    return event


def _names(reply: Any, key: str) -> list[str]:
    names = reply.get(key, []) if isinstance(reply, dict) else []
    return [str(n.get("name", n)) if isinstance(n, dict) else str(n) for n in names]


async def probe(client: Client) -> Dialect:
    """Find out which kind of server it is; RKLLM_SERVER_KIND overrides. Raises ServerError."""
    if client.settings.kind in _KINDS:
        return _KINDS[client.settings.kind](client)
    paths = ("/", "/api/version", "/current_model", "/v1/models")
    root, version, current, listed = await asyncio.gather(*(_try(client, path) for path in paths))
    if root.status == version.status == current.status == listed.status == _NO_REPLY:
        raise ServerError(root.text)
    greeting = str(root.json.get("message", "")) if isinstance(root.json, dict) else ""
    if isinstance(version.json, dict) and "version" in version.json and "RKLLama" in greeting:
        return Rkllama(client)
    if (
        greeting == "Welcome to RKLLama !"
        and current.json is not None
        and current.status in (200, 404)
    ):
        return Legacy(client)
    if listed.status == 200 and isinstance(listed.json, dict):
        return OpenAI(client)
    replies = zip(paths, (root, version, current, listed), strict=True)
    told = "; ".join(f"{path} answered {r.status} {r.said()[:60]!r}" for path, r in replies)
    raise ServerError(
        f"{client.settings.shown_url} is no server that this plugin knows: {told}. "
        "Set RKLLM_SERVER_URL, or RKLLM_SERVER_KIND to legacy, rkllama or openai"
    )


async def _try(client: Client, path: str) -> Reply:
    """A reply, or the reason why there is none: one path that hangs must not hide the others."""
    try:
        return await client.get(path)
    except ServerError as error:
        return Reply(_NO_REPLY, None, str(error))


def choose_model(model_id: str, repo: str, names: list[str]) -> str:
    """The server's name for a model: the same, without case, or that name and more after it.

    Raises ServerError where there is none or more than one.
    """
    base = repo.rsplit("/", 1)[-1]
    wanted = [model_id, base, repo]
    for same in (str, str.lower, _plain):
        if found := [n for n in names if same(n.rsplit("/", 1)[-1]) in {same(w) for w in wanted}]:
            return _only(model_id, found, names)
    plain = _plain(base)
    for start in (plain, plain.removesuffix("-instruct")):
        if found := [n for n in names if _is_build(_plain(n.rsplit("/", 1)[-1]), start)]:
            return _only(model_id, found, names)
    return _only(model_id, [], names)


def _is_build(name: str, model: str) -> bool:
    """Whether a directory's name is the model's and a build's marks, no other model's."""
    rest = name.removeprefix(model + "-")
    return rest != name and not _OTHER_MODEL.search(rest)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _only(model_id: str, found: list[str], names: list[str]) -> str:
    if len(found) == 1:
        return found[0]
    problem = f"has several for {model_id}: {', '.join(found)}" if found else f"has no {model_id}"
    raise ServerError(
        f"the server {problem}; its models are: {', '.join(names) or 'none'}. "
        "Set RKLLM_MODEL to the one that you mean"
    )
