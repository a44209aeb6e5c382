"""Prompts that begin alike, and what a toy's device computed of them."""

from plugin import PACKAGE
from prometheus_client import REGISTRY
from running import answer_of

from exo_kit.kit.contract import Layers

PAST = "What is the capital of France? It is known"  # more than a block of letters
HALVES = Layers("toy", 0, 1, 4), Layers("toy", 2, 3, 4)


async def conversation(runner, *prompts, most=4):
    """The ids of the answers to prompts that come one after the other."""
    return [(await answer_of(runner, text, f"turn {n}", most))[0] for n, text in enumerate(prompts)]


def rows(runner):
    """How many rows each call of the device had, in order."""
    return [count for batch in runner.executor.instance.batches for _, count in batch]


def held_bytes(of):
    """The gauge of held bytes."""
    return REGISTRY.get_sample_value(f"{PACKAGE}_held_bytes", {"of": of})
