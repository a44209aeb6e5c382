"""The servers that give ids: by which fields, and what of their streams is special."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

from ..contract import Piece
from ..server.client import ServerError
from ..server.events import Event, events, number, numbers, part, text
from .dialect import Dialect, Finish, Question, finish_of


class Vllm(Dialect):
    """vLLM: ids by a field of its own, before 0.10.2 by the names of the tokens' logprobs."""

    name = "vllm"
    ways: ClassVar[tuple[Event, ...]] = (
        {"return_token_ids": True},
        {"logprobs": 1, "return_tokens_as_token_ids": True},
    )
    stops_by_ids = True
    as_it_is: ClassVar[Event] = {"add_special_tokens": False}

    async def version(self) -> str:
        return text(await self._told("/version"), "version")

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        body = {"model": model, "prompt": content, "add_special_tokens": False}
        reply = await self.reply("/tokenize", body)
        found = reply.json.get("tokens") if isinstance(reply.json, dict) else None
        return numbers(found) or None


class SgLang(Vllm):
    """SGLang: its own route, since it is older than the field of vLLM's name there."""

    name = "sglang"
    ways = ({},)
    as_it_is: ClassVar[Event] = {}

    async def version(self) -> str:
        return text(await self._told("/get_server_info"), "version")

    async def ids(self, question: Question, way: Event) -> AsyncGenerator[Piece, None]:
        """Each event has all ids so far, or its own, and maybe some of the prompt's before them."""
        sampling = question.sampling()
        sampling["max_new_tokens"] = sampling.pop("max_tokens")
        sampling["stop_token_ids"] = list(question.ends)
        body: Event = {"input_ids": list(question.ids), "stream": True, "sampling_params": sampling}
        have = 0
        async with aclosing(events(self.client, "/generate", body)) as told:
            async for found in told:
                meta, given = part(found, "meta_info"), numbers(found.get("output_ids"))
                count = number(meta.get("completion_tokens"))
                new = len(given) if count is None else count - have
                if new > len(given):
                    raise ServerError("the server's stream left out ids of the answer")
                have += new
                ids = tuple(given[len(given) - new :])
                yield Piece(ids=ids, finish=_finish(meta.get("finish_reason"), not found))


class TensorRt(Dialect):
    """TensorRT-LLM's trtllm-serve: it refuses every field that it doesn't know."""

    name = "tensorrt-llm"
    ways = ({"detokenize": False},)
    stops_by_ids = True

    async def version(self) -> str:
        return text(await self._told("/version"), "version")


class LlamaCpp(Dialect):
    """llama.cpp's llama-server: its own route, on which ids come with the text."""

    name = "llama.cpp"
    ways = ({"return_tokens": True},)

    async def version(self) -> str:
        return text(await self._told("/props"), "build_info")

    async def tokenize(self, model: str, content: str) -> list[int] | None:
        body = {"model": model, "content": content, "add_special": False, "parse_special": True}
        reply = await self.reply("/tokenize", body)
        found = reply.json.get("tokens") if isinstance(reply.json, dict) else None
        return numbers(found) or None

    async def ids(self, question: Question, way: Event) -> AsyncGenerator[Piece, None]:
        """Of a character of several tokens it streams the last id alone, with the whole text.

        Its count says so; such a chunk is handed on with the text, without ids.
        """
        body = self._body(question) | {"prompt": list(question.ids)} | way
        body["n_predict"] = body.pop("max_tokens")
        have = 0
        async with aclosing(events(self.client, "/completion", body)) as told:
            async for found in told:
                ids, count = numbers(found.get("tokens")), number(found.get("tokens_predicted"))
                lost = count is not None and ids != [] and count - have != len(ids)
                have = have + len(ids) if count is None else count
                ended = bool(found.get("stop"))
                finish: Finish = None
                if ended:
                    finish = "length" if found.get("stop_type") == "limit" else "stop"
                yield Piece(text(found, "content"), () if lost else tuple(ids), finish=finish)
                if ended:
                    return


def _finish(reason: Any, done: bool) -> Finish:
    """SGLang's reason is an object with a type."""
    if isinstance(reason, dict):
        return finish_of({"finish_reason": reason.get("type")})
    return "stop" if done else finish_of({"finish_reason": reason})
