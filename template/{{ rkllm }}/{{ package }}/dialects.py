"""The three ways that RKLLM servers are spoken to, and how to tell which one it is."""

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from .client import Client, Reply, ServerError, UnreachableError, error_in, shortened

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer. count is the server's own count of the answer's tokens, if it gave one.

    legacy counts up with every chunk and has no final one.
    """

    text: str
    final: bool = False
    count: int | None = None


class Dialect(ABC):
    """One kind of server. The caller sees to it that one request runs at a time."""

    name: ClassVar[str]
    ends_with_event: ClassVar[bool] = True

    def __init__(self, client: Client) -> None:
        self.client = client
        # Parallel loads start workers that rkllama can't unload any more.
        self._loading = asyncio.Lock()

    @abstractmethod
    async def version(self) -> str:
        """The server's name and version in one line; ServerError if it doesn't answer."""

    @abstractmethod
    async def models(self) -> list[str]:
        """The names of the models that the server has."""

    async def load(self, model: str) -> None:
        """Get the model ready. Calling it again changes nothing.

        Raises:
            ServerError: the server could not load it.
        """
        async with self._loading:
            await self._load(model)

    async def recover(self, model: str) -> None:
        """Make the server usable after an answer that was cut or abandoned.

        Raises:
            ServerError: the model could not be loaded anew.
        """
        async with self._loading:
            await self._recover(model)

    @abstractmethod
    async def _load(self, model: str) -> None: ...

    @abstractmethod
    async def _recover(self, model: str) -> None: ...

    @abstractmethod
    def stream(self, model: str, messages: Messages, limit: int) -> AsyncGenerator[Chunk, None]:
        """The answer of at most limit tokens (legacy can't be limited), piece by piece.

        Raises:
            ServerError: the server refused, reported an error, broke off or fell silent.
        """

    async def _list(self, path: str, key: str) -> list[Any]:
        """GET a JSON object and hand out the list under key."""
        reply = (await self.client.get(path)).checked()
        return _list_in(reply, key)


class Rkllama(Dialect):
    """NotPunchnox/rkllama: Ollama's API, one worker process a model."""

    name = "rkllama"

    async def version(self) -> str:
        reply = (await self.client.get("/api/version")).checked()
        found = reply.json.get("version") if isinstance(reply.json, dict) else None
        if not isinstance(found, str):
            raise ServerError(f"{reply.url} gave no version: {shortened(reply.text)}")
        return f"rkllama {found}"

    async def models(self) -> list[str]:
        return _names(await self._list("/models", "models"))

    async def loaded(self) -> list[str]:
        """The models that have a worker (a dead one is listed too)."""
        return _names(await self._list("/api/ps", "models"))

    async def _load(self, model: str) -> None:
        reply = await self._post("/load_model", model)
        # "already loaded" comes with 200 and is about this very model.
        if reply.status != 200 or not _says(reply, "already loaded"):
            _loaded_or_raise(reply, model)

    async def _recover(self, model: str) -> None:
        reply = await self._post("/unload_model", model)
        if not _says(reply, "currently loaded"):  # "No model X are currently loaded."
            reply.checked()
        await self._load(model)

    async def stream(
        self, model: str, messages: Messages, limit: int
    ) -> AsyncGenerator[Chunk, None]:
        payload = {
            "model": model,
            "messages": messages,
            "stream": True,
            "think": False,
            "options": {"num_predict": limit},
        }
        async with aclosing(self.client.lines("/api/chat", payload)) as lines:
            async for line in lines:
                event = _event(line)
                final = event.get("done") is True
                count = event.get("eval_count") if final else None
                yield Chunk(
                    _content(event.get("message")), final, count if _is_count(count) else None
                )
                if final:
                    return

    async def _post(self, path: str, model: str) -> Reply:
        return await self.client.post(
            path, {"model_name": model}, self.client.settings.load_seconds
        )


class Legacy(Dialect):
    """jfreed-dev/rkllama: one model, one text buffer for all requests, no last event."""

    name = "legacy"
    ends_with_event = False

    async def version(self) -> str:
        reply = (await self.client.get("/")).checked()
        return f"legacy rkllama ({_message(reply) or shortened(reply.text)})"

    async def models(self) -> list[str]:
        return _names(await self._list("/models", "models"))

    async def loaded(self) -> list[str]:
        """The one model that is loaded, or nothing."""
        reply = await self.client.get("/current_model")
        if reply.status == 404 and isinstance(reply.json, dict):
            return []
        name = reply.checked().json.get("model_name") if isinstance(reply.json, dict) else None
        if not isinstance(name, str):
            raise ServerError(f"{reply.url} named no model: {shortened(reply.text)}")
        return [name]

    async def _load(self, model: str) -> None:
        loaded = await self.loaded()
        if loaded == [model]:
            return
        if loaded:
            await self._unload()
        reply = await self._post("/load_model", {"model_name": model})
        # Another client may have been quicker: fine if it wanted the same model.
        if not (_says(reply, "already loaded") and await self.loaded() == [model]):
            _loaded_or_raise(reply, model)

    async def _recover(self, model: str) -> None:
        await self._unload()
        await self._load(model)
        # What is left of the old answer opens the next one, whatever model is loaded. A request
        # that doesn't stream loses nothing and takes it along.
        messages = [{"role": "user", "content": "Answer with one word: OK"}]
        (await self._post("/generate", {"messages": messages, "stream": False})).checked()

    async def _unload(self) -> None:
        reply = await self._post("/unload_model", {})
        if not _says(reply, "currently loaded"):  # "No models are currently loaded."
            reply.checked()

    async def stream(
        self, model: str, messages: Messages, limit: int
    ) -> AsyncGenerator[Chunk, None]:
        payload = {"messages": alternating(messages), "stream": True}
        async with aclosing(self.client.lines("/generate", payload)) as lines:
            async for line in lines:
                event = _event(line)
                usage = event.get("usage")
                count = usage.get("completion_tokens") if isinstance(usage, dict) else None
                text = _content(_first(event.get("choices")))
                yield Chunk(text, count=count if _is_count(count) else None)

    async def _post(self, path: str, payload: dict[str, Any]) -> Reply:
        return await self.client.post(path, payload, self.client.settings.load_seconds)


class OpenAI(Dialect):
    """Any OpenAI-compatible server. It sees to its models and to abandoned answers itself."""

    name = "openai"

    async def version(self) -> str:
        await self.models()
        return "OpenAI-compatible server"

    async def models(self) -> list[str]:
        return _names(await self._list("/v1/models", "data"))

    async def _load(self, model: str) -> None:
        return None

    async def _recover(self, model: str) -> None:
        return None

    async def stream(
        self, model: str, messages: Messages, limit: int
    ) -> AsyncGenerator[Chunk, None]:
        payload = {"model": model, "messages": messages, "stream": True, "max_tokens": limit}
        finished, count = False, None
        async with aclosing(self.client.lines("/v1/chat/completions", payload)) as lines:
            async for line in lines:
                data = _sse_data(line)
                if data is None:
                    continue
                if data == "[DONE]":
                    finished = True
                    break
                event = _event(data)
                usage = event.get("usage")
                if isinstance(usage, dict) and _is_count(usage.get("completion_tokens")):
                    count = usage["completion_tokens"]
                choice = _first(event.get("choices"))  # none in a usage chunk
                text = _content(choice.get("delta") or choice.get("message"))
                finished = finished or choice.get("finish_reason") is not None
                if text:
                    yield Chunk(text)
        if finished:
            yield Chunk("", final=True, count=count)


async def probe(client: Client) -> Dialect:
    """Find out which kind of server answers; RKLLM_SERVER_KIND overrides it.

    Raises:
        ServerError: nothing there, or nothing known; the message says what each call answered.
    """
    kinds: dict[str, type[Dialect]] = {"rkllama": Rkllama, "legacy": Legacy, "openai": OpenAI}
    if client.settings.kind in kinds:
        return kinds[client.settings.kind](client)
    said: list[str] = []
    version = await _ask(client, "/api/version", said)
    root = await _ask(client, "/", said)
    welcome = _message(root) if root else None
    if (
        version is not None
        and version.status == 200
        and isinstance(version.json, dict)
        and version.json.get("version")
        and welcome is not None
        and "rkllama" in welcome.lower()
    ):
        return Rkllama(client)
    if welcome is not None and "welcome to rkllama" in welcome.lower():
        current = await _ask(client, "/current_model", said)
        if current and current.status in (200, 404) and isinstance(current.json, dict):
            return Legacy(client)
    models = await _ask(client, "/v1/models", said)
    if models and models.status == 200 and isinstance(models.json, dict) and "data" in models.json:
        return OpenAI(client)
    raise ServerError(
        "No RKLLM server that this plugin knows: "
        + "; ".join(said)
        + ". Correct RKLLM_SERVER_URL, or set RKLLM_SERVER_KIND to legacy, rkllama or openai."
    )


def choose_model(model_id: str, repo: str, names: Iterable[str]) -> str:
    """The server's name for a model: the same name, else the one name that begins with it.

    Raises:
        ServerError: no name fits, or several do.
    """
    names = sorted(set(names))
    wanted = list(dict.fromkeys([model_id, repo, repo.rsplit("/", 1)[-1]]))
    folded = {word.casefold() for word in wanted}
    full = [_tokens(word) for word in wanted]
    bare = [[token for token in tokens if token != "instruct"] for tokens in full]
    for found in (
        [name for name in names if name in wanted],
        [name for name in names if name.casefold() in folded],
        [name for name in names if _begins(name, full)],
        [name for name in names if _begins(name, bare)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise ServerError(
                f"Several of the server's models fit {model_id}: {', '.join(found)}. "
                "Set RKLLM_MODEL to the one to use."
            )
    raise ServerError(
        f"The server has no model that fits {model_id} ({repo}). "
        f"It has: {', '.join(names) or 'none'}. "
        "Install the model there, or set RKLLM_MODEL to the one to use."
    )


def alternating(messages: Messages) -> Messages:
    """The same conversation without system messages, and no two neighbours of one role.

    The legacy server puts its own system message in front, and refuses both.
    """
    folded: Messages = []
    system: list[str] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            system.append(content)
            continue
        if role == "user" and system:
            content = "\n\n".join([*system, content])
            system = []
        if folded and folded[-1]["role"] == role:
            folded[-1]["content"] += "\n\n" + content
        else:
            folded.append({"role": role, "content": content})
    if system:  # no user message after it
        return alternating([*folded, {"role": "user", "content": "\n\n".join(system)}])
    return folded


# Words after a model's name that make it another model, not another build of the same one.
_OTHER = frozenset({"base", "coder", "embedding", "math", "reranker", "thinking", "vl", "2507"})


def _tokens(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.rsplit("/", 1)[-1].casefold())


def _begins(name: str, wanted: list[list[str]]) -> bool:
    tokens = _tokens(name)
    return any(
        word and tokens[: len(word)] == word and _OTHER.isdisjoint(tokens[len(word) :])
        for word in wanted
    )


async def _ask(client: Client, path: str, said: list[str]) -> Reply | None:
    """GET for the probe: notes what was answered; only a missing connection ends it."""
    try:
        reply = await client.get(path)
    except UnreachableError:
        raise
    except ServerError as error:
        said.append(f"{path}: {error}")
        return None
    said.append(f"GET {reply.url} -> {reply.status} {shortened(reply.text)[:80] or '(empty)'}")
    return reply


def _message(reply: Reply) -> str | None:
    message = reply.json.get("message") if isinstance(reply.json, dict) else None
    return message if isinstance(message, str) and reply.status == 200 else None


def _says(reply: Reply, words: str) -> bool:
    """Is it a 200 or 400 whose error has these words?"""
    return reply.status in (200, 400) and words in (error_in(reply.json) or "").lower()


def _loaded_or_raise(reply: Reply, model: str) -> None:
    if reply.error is not None:
        raise ServerError(
            f"The server could not load {model}: HTTP {reply.status}: {reply.error}. "
            "Look into its log; the model must be compiled for its runtime and chip."
        )


def _list_in(reply: Reply, key: str) -> list[Any]:
    found = reply.json.get(key) if isinstance(reply.json, dict) else None
    if not isinstance(found, list):
        raise ServerError(f"{reply.url} gave no list of models: {shortened(reply.text)}")
    return found


def _names(found: list[Any]) -> list[str]:
    """Model names of a list of strings or of objects."""
    names = [
        item.get("id") or item.get("name") if isinstance(item, dict) else item for item in found
    ]
    return [name for name in names if isinstance(name, str)]


def _event(line: str) -> dict[str, Any]:
    """One JSON object of a stream; an error in it is raised."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise ServerError(f"The server sent something that is not an answer: {shortened(line)}")
    if (said := error_in(event)) is not None:
        raise ServerError(f"The server ended the answer with an error: {said}")
    return event


def _sse_data(line: str) -> str | None:
    """What a line of server-sent events carries; None for comments and other fields."""
    if line.startswith("data:"):
        return line[5:].strip()
    if line.startswith("{"):  # the server doesn't stream: the whole answer as one object
        return line
    if line.startswith("error:"):
        raise ServerError(f"The server ended the answer with an error: {shortened(line[6:])}")
    if line.startswith((":", "event:", "id:", "retry:")):
        return None
    raise ServerError(f"The server sent something that is not an answer: {shortened(line)}")


def _first(choices: object) -> dict[str, Any]:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
