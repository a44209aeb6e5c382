"""EX85: the plugin on exo 0.3, whose launcher finds it by an entry point of the template's."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from ..check import CannotError, Check, NotRunError
from ..events import describe, shorten
from ..exo_0_3 import ENDLESS, Node
from ..records_0_3 import card_of

LONG, SHORT = 400, 20  # tokens of an answer


class EX851(Check, row="answers", host="0.3"):
    "exo 0.3 takes the plugin's model cards"

    @staticmethod
    def check(node: Node) -> Iterator[str]:
        """exo 0.3 reads cards from TOML files, refuses unknown keys, and leaves out what it can't
        read (shared/models/model_cards.py). The plugin's `stage(root)` writes them below
        `root/cards`. An id is the plugin's own, `<package>/<name>`: a node without the plugin would
        run a hub's id with MLX."""
        if not node.cards:
            yield "stage() writes no card"
        for values in node.cards:
            model_id = str(values.get("model_id"))
            if not model_id.startswith(f"{node.package}/"):
                yield f"the id {model_id} does not begin with {node.package}/"
            if values.get("family") != node.plugin.family:
                yield f"the family of {model_id} is {shorten(values.get('family'))}"
            try:
                card_of(values)
            except Exception as error:
                yield f"exo refuses the card of {model_id}: {describe(error)}"


class EX852(Check, row="answers", host="0.3"):
    "A model of the plugin's answers on exo 0.3"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """exo starts a process for a model, which loads it and then gets requests
        (worker/runner/runner.py). An answer is TokenChunks and then FinishedResponse; the last
        chunk has a finish_reason and usage, which clients are told."""
        runner = await node.runner()
        first, again = await runner.answer(), await runner.answer()
        if first.error:
            yield f"an answer ends with an error: {first.error}"
        elif not first.text:
            yield "an answer has no text"
        elif first.finish not in {"stop", "length", "tool_calls"}:
            yield f"the last chunk's finish_reason is {shorten(first.finish)}"
        elif first.usage is None or not (first.usage.prompt_tokens and first.usage.total_tokens):
            yield f"the last chunk's usage is {shorten(first.usage)}"
        if first.text != again.text:
            yield f"with a temperature of 0 an answer is {first.text!r}, and then {again.text!r}"


class EX853(Check, row="answers", host="0.3"):
    "Requests on exo 0.3 don't mix"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """exo hands an engine one more request between two of its steps
        (worker/runner/runner.py): what belongs to a request is kept under its task's id."""
        runner = await node.runner()
        alone = (await runner.answer()).text
        replies = [runner.replies[runner.ask()] for _ in range(4)]
        if not await runner.until(lambda: all(reply.ended for reply in replies), 8.0):
            yield "four answers at once don't end"
        for reply in replies:
            if reply.ended and reply.text != alone:
                yield f"among others an answer is {reply.text!r}, alone {alone!r}"
                return


class EX854(Check, row="cancel", host="0.3"):
    "A request that is cancelled on exo 0.3 ends"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """A client that goes away becomes an id in `cancel_receiver`, which an engine reads in
        step(); it answers CancelledResponse and computes no more of it. Else the device is busy
        with what nobody reads."""
        runner = await node.runner()
        task, reply = await runner.begin(ENDLESS)
        if reply.ended:
            raise NotRunError("the device's answers are too short to be cancelled")
        if not await runner.cancel(task):
            yield "a request is cancelled, and the runner is still busy with it"
            await runner.stop()


class EX855(Check, row="faults", host="0.3"):
    "An error on exo 0.3 is a sentence, and the next request is answered"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """An error of a request is an ErrorChunk and then FinishedResponse
        (worker/engines/base.py); one that is raised in step() ends the process and all its
        requests, and exo gives up after five starts."""
        runner = await node.runner()
        before = (await runner.answer()).text
        reply = await runner.answer(images=["aGVsbG8="])
        if not reply.error and not reply.text:
            yield "a request with an image ends without an error and without an answer"
        if (after := (await runner.answer()).text) != before:
            yield f"after another request's error the answer is {after!r}, not {before!r}"


class EX857(Check, row="streaming", host="0.3"):
    "An answer on exo 0.3 comes in parts"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[str]:
        """exo sends each chunk to its client as it comes. Chunks may be joined, as each costs exo
        an event; but the first words come before the last."""
        runner = await node.runner()
        task, reply = await runner.begin(LONG)
        await runner.until(lambda: len(reply.times) > 1 or reply.ended)
        if not reply.ended:
            await runner.cancel(task)
        if len(reply.times) > 1 or reply.error:
            return
        if reply.usage is None or reply.usage.completion_tokens < SHORT:
            raise NotRunError("the device's answers are too short to come in parts")
        yield f"an answer of {len(reply.text)} characters comes in one chunk"


class EX858(Check, row="sampling", host="0.3"):
    "exo 0.3's temperature and seed count"

    @staticmethod
    async def check(node: Node) -> AsyncIterator[Any]:
        """A request brings temperature, top_p and seed (shared/types/text_generation.py): the same
        seed gives the same answer, and another one another, where the temperature is high."""
        runner, texts = await node.runner(), []
        for seed in (1, 1, 2, 3, 4, 5):
            texts.append((await runner.answer(temperature=1.9, seed=seed)).text)
        if len(set(texts)) == 1:
            raise CannotError("answers are the same at any temperature on exo 0.3")
        if texts[0] != texts[1]:
            yield f"with the same seed an answer is {texts[0]!r}, and then {texts[1]!r}"
