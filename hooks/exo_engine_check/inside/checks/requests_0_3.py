"""EX86: what of a request counts on exo 0.3; what doesn't is no fault, and stands in the table."""

import math
from collections.abc import AsyncIterator

from ..check import CannotError, Check
from ..events import shorten
from ..exo_0_3 import Node

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
MANY = 48  # tokens, among which some come twice


class EX861(Check, row="tools", host="0.3"):
    "A request with tools is answered on exo 0.3"

    @staticmethod
    async def check(node: Node) -> None:
        """Agents send tools with each request. An answer that ignores them is another answer than
        was asked for: what can't heed them refuses them with a sentence, and that is in
        CAPABILITIES.md."""
        reply = await (await node.runner()).answer(tools=[TOOL])
        if reply.error:
            raise CannotError(f"a request with tools is refused: {reply.error}")


class EX862(Check, row="logprobs", host="0.3"):
    "Logprobs come where they are asked for on exo 0.3"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """A TokenChunk has the logprob of its one token, and top_logprobs, the likeliest first
        (api/adapters/chat_completions.py). exo's dashboard asks for them in each request, so one
        without is answered all the same."""
        reply = await (await node.runner()).answer(logprobs=True, top_logprobs=2)
        if reply.error:
            raise CannotError(f"a request for logprobs is refused: {reply.error}")
        having = [c for c in reply.chunks if getattr(c, "logprob", None) is not None]
        if not having:
            raise CannotError("answers come without logprobs")
        for chunk in having:
            top = [item.logprob for item in chunk.top_logprobs or []]
            values = [chunk.logprob, *top]
            if not all(math.isfinite(value) and value <= 0 for value in values):
                yield f"a token's logprobs are {shorten(values)}: none is above 0, or infinite"
                return
            if len(top) != 2 or top != sorted(top, reverse=True):
                yield f"the two likeliest tokens' logprobs are {shorten(top)}"
                return


class EX863(Check, row="penalties", host="0.3"):
    "Penalties count on exo 0.3"

    @staticmethod
    async def check(node: Node) -> None:
        """repetition_penalty, presence_penalty and frequency_penalty keep a model from saying the
        same again and again: large ones give another answer."""
        runner, texts = await node.runner(), set[str]()
        large = {"repetition_penalty": 1.9, "frequency_penalty": 2.0, "presence_penalty": 2.0}
        for penalties in ({}, large):
            texts.add((await runner.answer(max_output_tokens=MANY, **penalties)).text)
        if len(texts) < 2:
            raise CannotError("answers are the same with any penalty")


class EX864(Check, row="images", host="0.3"):
    "A request with an image is answered on exo 0.3"

    @staticmethod
    async def check(node: Node) -> None:
        """A client may send images with its text; what takes text alone refuses them with a
        sentence."""
        reply = await (await node.runner()).answer(images=["aGVsbG8="])
        if reply.error:
            raise CannotError(f"a request with an image is refused: {reply.error}")
