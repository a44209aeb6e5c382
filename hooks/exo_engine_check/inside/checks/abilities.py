"""EX82: what the plugin can do; that it can't is no fault, and stands in CAPABILITIES.md."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..audit import replaced
from ..check import CannotError, Check, NotRunError, Share
from ..driver import Driver
from ..nodes import Listener, make_node, start

TEXTS = (
    "Hello, exo!",
    " two  spaces ",
    "a\tb\r\n\nc",
    "if x:\n    return 1.5e-3  # 100 %",
    "Größe, naïve, Übung",
    "日本語と한국어",
    "مرحبا بالعالم",
    "👩🏽‍🚀 🙂",
    "\u0301 e\u0301 \u200b",
)


class EX821(Check, row="lossless text"):
    "Text comes back from the ids as it was"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Share]:
        """Prompts become ids and answers text by the engine's own tokenizer
        (inference_engine.py:270, chatgpt_api.py:80). A vocabulary without some bytes, or a
        tokenizer that normalizes, loses what a user wrote."""
        await driver.nodes(1)
        engine, shard, good = await driver.first_engine(), driver.shards(1)[0], 0
        for text in TEXTS:
            with driver.events.step(f"encoding and decoding {text!r}"):
                ids = await engine.encode(shard, text)
                good += str(await engine.decode(shard, ids)).endswith(text)
        yield Share(good, len(TEXTS))


class EX822(Check, row="sampling"):
    "exo's temperature counts"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """exo hands its `--default-temp` to `sample(result, temp=…)` (node.py:128), and nothing of
        a request's own. A high one has to give other tokens than the likeliest."""
        logits = (await driver.nodes(1)).first
        if logits.dtype.kind != "f":
            raise CannotError("the device samples by itself: no logits come to sample()")
        engine = await driver.first_engine()
        if len({(await engine.sample(logits, temp=5.0)).item() for _ in range(20)}) < 2:
            raise CannotError("sample() gives the same token at any temperature")
        if len({(await engine.sample(logits, temp=0.0)).item() for _ in range(5)}) > 1:
            yield "sample() with a temperature of 0 gives one token and then another"


class EX823(Check, row="split by layers"):
    "Two nodes split the layers"

    @staticmethod
    async def check(driver: Driver) -> None:
        """A node computes the layers of its shard (node.py:382) and sends hidden states on, so a
        cluster can run what no node of it holds alone."""
        if "f" not in (await driver.nodes(2)).sent:
            raise CannotError("no hidden states travel: one node computes the whole model")


class EX824(Check, row="whole model in a cluster"):
    "One node of a cluster answers with the whole model"

    @staticmethod
    async def check(driver: Driver) -> None:
        """What can't be cut, as a compiled model or a server, has the node with the last layer do
        all the work; the others hand the prompt on."""
        if "f" in (await driver.nodes(2)).sent:
            raise CannotError("the layers are split over the nodes")


class EX825(Check, row="precision"):
    "The logits of two nodes are those of one, to the bit"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[Share]:
        """exo's own test of engines demands it (test_inference_engine.py): sums in another order
        on another split give other last bits, and at a near tie another token."""
        one, two = (await driver.nodes(1)).first, (await driver.nodes(2)).first
        if one.dtype.kind != "f":
            raise CannotError("the device gives ids, and no logits")
        yield (
            Share(int((one == two).sum()), int(one.size)) if one.shape == two.shape else Share(0, 1)
        )


class EX826(Check, row="batching"):
    "Requests in flight are computed together"

    @staticmethod
    async def check(driver: Driver) -> None:
        """exo never batches: each request is a task of its own (node.py:152). A backend of the
        template's contract computes several at once by `step_batch()`, or answers several at
        once."""
        backend, most = await _backend(driver), [0]
        if hasattr(backend, "step_batch"):
            around = replaced(backend, "step_batch", _counted_steps(backend.step_batch, most))
        elif getattr(backend, "blocking", False):
            raise CannotError("the backend is driven by one thread, one answer after the other")
        elif hasattr(backend, "answer"):
            around = replaced(backend, "answer", _counted_answers(backend.answer, most))
        else:
            raise CannotError("the backend has no step_batch()")
        engine = driver.make()
        with around:
            for _ in range(3):  # on a busy machine one may come after the other
                work = asyncio.gather(*(driver.answer(engine) for _ in range(4)))
                await driver.run("four answers at once", work)
                if most[0] > 1:
                    return
        raise CannotError("four requests at once are computed one after another")


class EX827(Check, row="reuse"):
    "What an earlier request computed is used again"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """A chat's every turn is a new request with all of its history. A backend of the template's
        contract begins it with what the turn before has computed, by `reuse()`."""
        lengths = list[int]()

        def counted(plain: Any) -> Any:
            def reuse(self: Any, request_id: str, other: str, length: int) -> None:
                plain(self, request_id, other, length)
                lengths.append(length)

            return reuse

        first, second = await _twice(driver, counted)
        if first.ids != second.ids:
            yield f"the same prompt again gives {second.ids}, at first {first.ids}"
        if not lengths:
            raise CannotError("a prompt that has just been computed is computed anew")


class EX812(Check):
    "A request that uses another's state leaves it as it is"

    @staticmethod
    async def check(driver: Driver) -> AsyncIterator[str]:
        """`reuse(new, other, length)` of the template's contract begins a request with the first
        rows of another one, which goes on (kit/contract.py). Where both write into one cache, what
        one appends changes the other's answer. Copy the rows, or never write over shared ones."""
        outcomes = list[bool]()

        def tried(plain: Any) -> Any:
            def reuse(self: Any, request_id: str, other: str, length: int) -> None:
                plain(self, request_id, other, length)
                if not outcomes:
                    outcomes.append(
                        _shares(driver, self, lambda *arguments: plain(self, *arguments))
                    )

            return reuse

        await _twice(driver, tried)
        if not outcomes:
            raise NotRunError("nothing is used again: EX827 says why")
        if outcomes[0]:
            yield "after another request has used its state, a request gives other logits"


async def _twice(driver: Driver, make: Callable[[Any], Any]) -> list[Listener]:
    """Two answers to one prompt, with another reuse() of the backend's, made from its own."""
    backend = await _backend(driver)
    if not hasattr(backend, "reuse"):
        raise CannotError("the backend has no reuse()")
    node, answers = await make_node(driver, limit=4), list[Listener]()
    with replaced(backend, "reuse", make(backend.reuse)):
        for _ in range(2):
            answers.append(await start(driver, node, driver.device.prompt * 8))
            await answers[-1].within()
    return answers


def _shares(driver: Driver, backend: Any, reuse: Callable[[str, str, int], None]) -> bool:
    """Whether a new request's steps change an older one's; on the device's own thread."""
    names = [f"{driver.request_id()}-{n}" for n in range(3)]
    prompt, tokens = driver.np.arange(40)[None] % 7, [driver.np.array([[n]]) for n in (1, 2, 3)]
    outputs = []
    try:
        for name in names[:2]:
            backend.step(name, prompt)
            backend.step(name, tokens[0])
            if name == names[1]:
                reuse(names[2], name, 32)
                backend.step(names[2], driver.np.arange(12)[None] % 5)
            outputs.append(driver.np.array(backend.step(name, tokens[1])))
    finally:
        for name in names:
            backend.forget(name)
    most = float(driver.np.abs(outputs[0]).max())
    return bool(driver.np.abs(outputs[0] - outputs[1]).max() > 1e-3 * most)


async def _backend(driver: Driver) -> Any:
    """The class that the engine computes with, in the template's contract."""
    await driver.nodes(1)
    backend = getattr(type(driver.make()), "backend", None)
    if not isinstance(backend, type):
        raise NotRunError("the engine's class names no backend of the template's contract")
    return backend


def _counted_steps(plain: Any, most: list[int]) -> Any:
    def step_batch(self: Any, steps: list[Any]) -> Any:
        most[0] = max(most[0], len(steps))
        return plain(self, steps)

    return step_batch


def _counted_answers(plain: Any, most: list[int]) -> Any:
    """Counts the answers that have started and not ended: one that waits for its turn has not."""
    running = set[str]()

    async def answer(self: Any, request: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(plain(self, request)) as pieces:
                async for piece in pieces:
                    running.add(request.id)
                    most[0] = max(most[0], len(running))
                    yield piece
        finally:
            running.discard(request.id)

    return answer
