"""Which server it is, told apart by asking."""

import asyncio
import time

from ..server.client import Client, Refused, Reply, ServerError
from ..server.events import parts, text
from .dialect import Dialect
from .dialects import LlamaCpp, LlamaCppPython, LmStudio, SgLang, TensorRt, Vllm
from .refusal import KEY, advised
from .settings import Settings, named

LOOK_SECONDS = 0.5  # how often a server that loads its model is asked
_NO_REPLY = 0  # no status of HTTP
_PATHS = ("/v1/models", "/props")
_KINDS: dict[str, type[Dialect]] = {
    kind.name: kind
    for kind in (Dialect, LlamaCpp, LlamaCppPython, LmStudio, SgLang, TensorRt, Vllm)
}
_OWNERS: dict[str, type[Dialect]] = {
    "llamacpp": LlamaCpp,
    "me": LlamaCppPython,
    "organization_owner": LmStudio,
    "sglang": SgLang,
    "tensorrt_llm": TensorRt,
    "vllm": Vllm,
}


async def probe(client: Client, settings: Settings, seconds: float = 0.0) -> Dialect:
    """Find out which server it is; a setting overrides. Raises ServerError.

    seconds: how long one that is loading its model is waited for.
    """
    until = time.monotonic() + seconds
    while True:
        replies = await asyncio.gather(*(_try(client, path) for path in _PATHS))
        if not any(reply.status == 503 for reply in replies) or time.monotonic() > until:
            break
        await asyncio.sleep(LOOK_SECONDS)
    for path, reply in zip(_PATHS, replies, strict=True):
        if reply.status in (*KEY, 503):
            raise advised(client.refused(path, reply), settings)
    kind = _KINDS.get(settings.kind) or _kind(*replies)
    if kind is None:
        raise _unknown(client, settings, replies)
    return kind(client, settings.load_seconds)


def _kind(models: Reply, props: Reply) -> type[Dialect] | None:
    if isinstance(props.json, dict) and "default_generation_settings" in props.json:
        return LlamaCpp
    if models.status != 200 or not isinstance(models.json, dict):
        return None
    owners = [text(model, "owned_by") for model in parts(models.json, "data")]
    return next((_OWNERS[owner] for owner in owners if owner in _OWNERS), Dialect)


async def _try(client: Client, path: str) -> Reply:
    """A reply, or the reason why there is none: one path that hangs must not hide the others."""
    try:
        return await client.get(path)
    except Refused:
        raise
    except ServerError as error:
        return Reply(_NO_REPLY, None, str(error))


def _unknown(client: Client, settings: Settings, replies: list[Reply]) -> ServerError:
    if all(reply.status == _NO_REPLY for reply in replies):
        return ServerError(replies[0].text)
    replied = "; ".join(
        f"{path} answered {reply.status} {reply.words()[:60]!r}"
        for path, reply in zip(_PATHS, replies, strict=True)
    )
    return ServerError(
        f"{settings.address.origin} is no OpenAI-compatible server: "
        f"{settings.without_secrets(replied)}. Set {named('URL')} to what stands before its /v1, "
        f"or {named('KIND')} where a proxy hides which server it is"
    )
