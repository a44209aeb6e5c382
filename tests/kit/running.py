"""What tests of the runner share: where a toy's model is, a request, and its whole answer."""

import asyncio

from plugin import PACKAGE
from prometheus_client import REGISTRY

from exo_kit.kit.cards import Model
from exo_kit.kit.contract import Layers, Request

WHOLE = Layers("toy", 0, 3, 4)


class Source:
    """A folder with the toy's tokenizer; it counts what is asked of it."""

    model = Model("toy", "Toy", "organization/toy", 4)

    def __init__(self, folder):
        self.folder = folder
        self.calls = []

    async def tokenizer(self):
        return self.folder

    async def files(self, patterns, layers, everything):
        self.calls.append((patterns, layers, everything))
        return self.folder


def request(runner, prompt="xyz", name="request", most=64, **members):
    ids = tuple(runner.tokenizer.encode(prompt))
    return Request(name, prompt, ids, most, **members)


async def answer_of(runner, *args, **members):
    """Ids, text and finish of an answer."""
    ids, text, finish = [], "", None
    async for piece in runner.answer(request(runner, *args, **members)):
        ids += piece.ids
        text += piece.text
        finish = piece.finish
    return ids, text, finish


async def until(condition):
    """Wait for what another thread does."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the device works in its own thread
            await asyncio.sleep(0.001)


def count(outcome, cause=""):
    labels = {"outcome": outcome, "cause": cause}
    return REGISTRY.get_sample_value(f"{PACKAGE}_requests_total", labels) or 0


def value(name):
    return REGISTRY.get_sample_value(f"{PACKAGE}_{name}") or 0
