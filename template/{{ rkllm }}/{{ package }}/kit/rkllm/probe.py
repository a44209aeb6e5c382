"""Which of the three kinds a server is."""

import asyncio

from ..server.client import Client, Reply, ServerError
from .dialect import Dialect
from .dialects import Legacy, OpenAI, Rkllama
from .settings import Settings

_NO_REPLY = 0  # no status of HTTP
_KINDS: dict[str, type[Dialect]] = {"legacy": Legacy, "rkllama": Rkllama, "openai": OpenAI}
_PATHS = ("/", "/api/version", "/current_model", "/v1/models")


async def probe(client: Client, settings: Settings) -> Dialect:
    """Find out which kind of server it is; RKLLM_SERVER_KIND overrides. Raises ServerError."""
    kind = _KINDS.get(settings.kind)
    if kind is None:
        replies = await asyncio.gather(*(_try(client, path) for path in _PATHS))
        kind = _kind(*replies)
        if kind is None:
            raise _unknown(settings, replies)
    return kind(client, settings.load_seconds)


def _kind(root: Reply, version: Reply, current: Reply, models: Reply) -> type[Dialect] | None:
    greeting = str(root.json.get("message", "")) if isinstance(root.json, dict) else ""
    if isinstance(version.json, dict) and "version" in version.json and "RKLLama" in greeting:
        return Rkllama
    answers = current.json is not None and current.status in (200, 404)
    if greeting == "Welcome to RKLLama !" and answers:
        return Legacy
    return OpenAI if models.status == 200 and isinstance(models.json, dict) else None


async def _try(client: Client, path: str) -> Reply:
    """A reply, or the reason why there is none: one path that hangs must not hide the others."""
    try:
        return await client.get(path)
    except ServerError as error:
        return Reply(_NO_REPLY, None, str(error))


def _unknown(settings: Settings, replies: list[Reply]) -> ServerError:
    if all(reply.status == _NO_REPLY for reply in replies):
        return ServerError(replies[0].text)
    replied = "; ".join(
        f"{path} answered {reply.status} {reply.words()[:60]!r}"
        for path, reply in zip(_PATHS, replies, strict=True)
    )
    return ServerError(
        f"{settings.address.origin} is no server that this plugin knows: "
        f"{settings.without_secrets(replied)}. "
        "Set RKLLM_SERVER_URL, or RKLLM_SERVER_KIND to legacy, rkllama or openai"
    )
