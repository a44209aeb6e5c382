"""The order in which nodes of exo 0.0 call their engines for one request.

The checker and the tests of every plugin use this one module. It imports nothing of exo, and numpy
only where an array is sent, so that whatever imports the checker needs neither.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

# Calls infer_prompt or infer_tensor of an engine and returns the array that it gives:
# (engine, name of the method, shard, prompt or array). What has to be seen of a step is seen there.
Step = Callable[[Any, str, Any, Any], Awaitable[Any]]


def split(shard: Any, parts: int = 2) -> list[Any]:
    """Return the shards that a cluster of so many nodes makes of a model."""
    layers = shard.n_layers
    cuts = [layers * n // parts for n in range(parts + 1)]
    return [type(shard)(shard.model_id, a, b - 1, layers) for a, b in itertools.pairwise(cuts)]


def wire(array: Any) -> Any:
    """Send an array to a peer: it arrives read-only, with a dtype that has a numpy name."""
    import numpy as np

    received = np.frombuffer(array.tobytes(), dtype=np.dtype(str(array.dtype)))
    return received.reshape(array.shape)


async def first_step(engines: Sequence[Any], shards: Sequence[Any], prompt: str, step: Step) -> Any:
    """Run a prompt through all shards; the first one is loaded at the same time."""
    _, x = await asyncio.gather(
        engines[0].ensure_shard(shards[0]), step(engines[0], "infer_prompt", shards[0], prompt)
    )
    return await _other_shards(engines, shards, x, step)


async def later_step(engines: Sequence[Any], shards: Sequence[Any], token: Any, step: Step) -> Any:
    """Run a sampled token through all shards; a node alone sends itself nothing."""
    x = token.reshape(1, -1) if len(engines) == 1 else wire(token.reshape(1, -1))
    x = await step(engines[0], "infer_tensor", shards[0], x)
    return await _other_shards(engines, shards, x, step)


async def _other_shards(engines: Sequence[Any], shards: Sequence[Any], x: Any, step: Step) -> Any:
    """Hand a result from peer to peer."""
    for engine, shard in list(zip(engines, shards, strict=True))[1:]:
        x = await step(engine, "infer_tensor", shard, wire(x))
    return x


async def pick(engine: Any, shard: Any, result: Any) -> tuple[Any, Any]:
    """Sample on the last node; return the array and its id. `item()` wants just one element."""
    token = await engine.sample(result, temp=0.0)
    await engine.ensure_shard(shard)
    return token, token.item()


async def answer(
    engines: Sequence[Any], shards: Sequence[Any], prompt: str, max_tokens: int, step: Step
) -> AsyncIterator[Any]:
    """Yield the ids of an answer on one node or several, the EOS id among them."""
    x = await first_step(engines, shards, prompt, step)
    for count in itertools.count(1):
        token, number = await pick(engines[-1], shards[-1], x)
        yield number
        if number == engines[-1].tokenizer.eos_token_id or count >= max_tokens:
            return
        x = await later_step(engines, shards, token, step)
