"""The servers that give ids, or call a field otherwise: what each of them has of its own."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

from ..contract import Finish, Piece, Usage
from ..server.choices import finish_of
from ..server.client import ServerError
from ..server.events import Event, events, number, numbers, part, text
from .dialect import Dialect, ServerRequest
from .logprobs import of_llama, of_sglang

_GENERATE = frozenset({"meta_info", "output_ids", "text"})  # members of SGLang's own events
_COMPLETION = frozenset({"content", "stop", "tokens"})  # and of llama.cpp's


class Vllm(Dialect):
    """vLLM: ids by a field of its own, before 0.10.2 by the names of the tokens' logprobs."""

    name = "vllm"
    id_fields: ClassVar[tuple[Event, ...]] = (
        {"return_token_ids": True},
        {"logprobs": 1, "return_tokens_as_token_ids": True},
    )
    stops_by_ids = True
    as_it_is: ClassVar[Event] = {"add_special_tokens": False}

    def logprob_fields(self, most: int) -> Event:
        return {"logprobs": most, "return_tokens_as_token_ids": True}

    async def version(self) -> str:
        return text(await self._get("/version"), "version")

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        body = {"model": model, "prompt": content, "add_special_tokens": False}
        reply = await self.reply("/tokenize", body)
        tokens = reply.json.get("tokens") if isinstance(reply.json, dict) else None
        return numbers(tokens) or None


class SgLang(Vllm):
    """SGLang: its own route, since it is older than the field of vLLM's name there."""

    name = "sglang"
    id_fields = ({},)
    as_it_is: ClassVar[Event] = {}

    def logprob_fields(self, most: int) -> Event:
        return {"return_logprob": True, "top_logprobs_num": most}

    async def version(self) -> str:
        return text(await self._get("/get_server_info"), "version")

    async def ids(self, request: ServerRequest, fields: Event) -> AsyncGenerator[Piece, None]:
        """Each event has all ids so far, or its own, and maybe some of the prompt's before them."""
        sampling = self._taken(self.sampling(request)) | {
            "max_new_tokens": request.max_tokens,
            "temperature": request.sampling.temperature,
            "stop_token_ids": list(request.end_ids),
        }
        if "seed" in sampling:  # its name on this route
            sampling["sampling_seed"] = sampling.pop("seed")
        body: Event = {"input_ids": list(request.ids), "stream": True, "sampling_params": sampling}
        have, most = 0, request.sampling.logprobs
        body |= self._logprobs(most)
        async with aclosing(events(self.client, "/generate", body, _GENERATE)) as stream:
            async for event in stream:
                meta, value = part(event, "meta_info"), event.get("output_ids")
                entries = value if isinstance(value, list) else []
                length, count = len(entries), number(meta.get("completion_tokens"))
                new = max(length if count is None else count - have, 0)
                ids = numbers(entries[length - new :]) if 0 < new <= length else []
                if new > len(ids):
                    raise ServerError("the server's stream left out ids of the answer")
                have += new
                finish = finish_of(meta) if event else "stop"
                usage = _usage(meta, "prompt_tokens", "completion_tokens", "cached_tokens")
                logprobs = () if most is None else of_sglang(meta, len(ids), most)
                last = usage if finish else None
                yield Piece(ids=tuple(ids), finish=finish, usage=last, logprobs=logprobs)


class TensorRt(Dialect):
    """TensorRT-LLM's trtllm-serve: it refuses every field that it doesn't know."""

    name = "tensorrt-llm"
    id_fields = ({"detokenize": False},)
    stops_by_ids = True

    async def version(self) -> str:
        return text(await self._get("/version"), "version")


class LlamaCpp(Dialect):
    """llama.cpp's llama-server: its own route, on which ids come with the text."""

    name = "llama.cpp"
    id_fields = ({"return_tokens": True},)
    names: ClassVar[dict[str, str]] = {"repetition_penalty": "repeat_penalty"}

    def logprob_fields(self, most: int) -> Event:
        return {"n_probs": max(most, 1)}

    async def version(self) -> str:
        return text(await self._get("/props"), "build_info")

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        body = {"model": model, "content": content, "add_special": False, "parse_special": True}
        reply = await self.reply("/tokenize", body)
        tokens = reply.json.get("tokens") if isinstance(reply.json, dict) else None
        return numbers(tokens) or None

    async def ids(self, request: ServerRequest, fields: Event) -> AsyncGenerator[Piece, None]:
        """Of a character of several tokens it streams the last id alone, with the whole text.

        Its count says so; such a chunk is handed on with the text, without ids.
        """
        body = self._body(request) | {"prompt": list(request.ids)} | fields
        body["n_predict"] = body.pop("max_tokens", request.max_tokens)
        have, most = 0, request.sampling.logprobs
        body |= self._logprobs(most)
        async with aclosing(events(self.client, "/completion", body, _COMPLETION)) as stream:
            async for event in stream:
                ids, count = numbers(event.get("tokens")), number(event.get("tokens_predicted"))
                lost = count is not None and ids != [] and count - have != len(ids)
                have = have + len(ids) if count is None else count
                ended = bool(event.get("stop"))
                finish: Finish | None = None
                if ended:
                    finish = "length" if event.get("stop_type") == "limit" else "stop"
                yield Piece(
                    text(event, "content"),
                    () if lost else tuple(ids),
                    finish=finish,
                    usage=_llama_usage(event) if ended else None,
                    logprobs=() if most is None or lost else of_llama(event, most),
                )
                if ended:
                    return


class LmStudio(Dialect):
    """LM Studio: text, and llama.cpp's name of a penalty."""

    name = "lm-studio"
    names: ClassVar[dict[str, str]] = {"repetition_penalty": "repeat_penalty"}


class LlamaCppPython(LmStudio):
    """llama-cpp-python's server: it penalizes repetition unless it is asked not to."""

    name = "llama-cpp-python"
    neutral: ClassVar[Event] = {"repeat_penalty": 1.0}


def _usage(event: Event, prompt: str, completion: str, reused: str) -> Usage | None:
    counts = number(event.get(prompt)), number(event.get(completion))
    if not counts[0] or counts[1] is None:
        return None
    return Usage(counts[0], counts[1], number(event.get(reused)) or 0)


def _llama_usage(event: Event) -> Usage | None:
    """Counts of a last event; tokens_cached is what its slot holds, not what it took over."""
    timings = part(event, "timings")
    counts = {
        "prompt": number(event.get("tokens_evaluated")),
        "completion": number(event.get("tokens_predicted")),
        "reused": number(timings.get("cache_n")),
    }
    return _usage(counts, *counts)
