"""Calls engines as a node of exo does: its order, its arguments, its read-only arrays."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from exo.download.shard_download import NoopShardDownloader
from exo.inference.shard import Shard

Array = np.ndarray[Any, np.dtype[Any]]


class RecordingDownloader(NoopShardDownloader):
    """Says where exo would have put a model, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Shard, str]] = []

    async def ensure_shard(self, shard: Shard, inference_engine_name: str) -> Path:
        """Return the model's folder under $EXO_HOME/downloads."""
        from exo.models import get_repo

        self.calls.append((shard, inference_engine_name))
        repo = get_repo(shard.model_id, inference_engine_name)
        assert repo, f"no repo of {inference_engine_name} for {shard.model_id}"
        home = Path(os.environ.get("EXO_HOME") or Path.home() / ".cache" / "exo")
        return home / "downloads" / repo.replace("/", "--")


def full_shard(engine: Any, model_id: str) -> Shard:
    """Return all layers of a model, as exo's API finds them."""
    from exo.models import build_full_shard

    shard = build_full_shard(model_id, type(engine).__name__)
    assert shard is not None, f"exo has no model {model_id} for {type(engine).__name__}"
    return shard


def split(shard: Shard) -> tuple[Shard, Shard]:
    """Return the two halves that a cluster of two makes of a model."""
    half = shard.n_layers // 2
    return (
        Shard(shard.model_id, 0, half - 1, shard.n_layers),
        Shard(shard.model_id, half, shard.n_layers - 1, shard.n_layers),
    )


def wire(array: Array) -> Array:
    """Send an array to a peer: it arrives read-only, with a dtype that has a numpy name."""
    received = np.frombuffer(array.tobytes(), dtype=np.dtype(str(array.dtype)))
    return received.reshape(array.shape)


def check_state(sent: Any, returned: Any) -> None:
    """Fail where an engine touched the state, or put in what JSON can't carry."""
    assert returned == sent, "inference_state must pass through untouched"
    assert json.loads(json.dumps(returned)) == sent, "inference_state must survive the wire"


async def first_step(
    engines: Sequence[Any], shards: Sequence[Shard], prompt: str, request_id: str, state: Any
) -> Array:
    """Run a prompt through all shards; the first one is loaded at the same time, as in exo."""
    before = json.loads(json.dumps(state))
    _, (result, returned) = await asyncio.gather(
        engines[0].ensure_shard(shards[0]),
        engines[0].infer_prompt(request_id, shards[0], prompt, state),
    )
    check_state(before, returned)
    return await _other_shards(engines, shards, result, request_id, state)


async def later_step(
    engines: Sequence[Any], shards: Sequence[Shard], token: Array, request_id: str, state: Any
) -> Array:
    """Run a sampled token through all shards."""
    before = json.loads(json.dumps(state))
    x = wire(token.reshape(1, -1))
    result, returned = await engines[0].infer_tensor(request_id, shards[0], x, state)
    check_state(before, returned)
    return await _other_shards(engines, shards, result, request_id, state)


async def _other_shards(
    engines: Sequence[Any], shards: Sequence[Shard], x: Array, request_id: str, state: Any
) -> Array:
    """Hand a result from peer to peer."""
    before = json.loads(json.dumps(state))
    for engine, shard in list(zip(engines, shards, strict=True))[1:]:
        x, returned = await engine.infer_tensor(request_id, shard, wire(x), state)
        check_state(before, returned)
    return x


async def pick(engine: Any, shard: Shard, result: Array) -> tuple[Array, int]:
    """Sample on the last node, as exo does; `item()` wants exactly one element."""
    token = await engine.sample(result, temp=0.0)
    await engine.ensure_shard(shard)
    return token, int(token.item())


async def generate(
    engines: Sequence[Any],
    shards: Sequence[Shard],
    prompt: str,
    max_tokens: int = 64,
    request_id: str = "request",
    state: Any = None,
) -> list[int]:
    """Answer a prompt on one node or several; return the ids, the EOS id among them."""
    ids: list[int] = []
    result = await first_step(engines, shards, prompt, request_id, state)
    while True:
        token, number = await pick(engines[-1], shards[-1], result)
        ids.append(number)
        if number == engines[-1].tokenizer.eos_token_id or len(ids) >= max_tokens:
            return ids
        result = await later_step(engines, shards, token, request_id, state)


def text_of(engine: Any, ids: list[int]) -> str:
    """Return an answer's text, without the EOS that ends it."""
    ended = ids and ids[-1] == engine.tokenizer.eos_token_id
    return str(engine.tokenizer.decode(ids[:-1] if ended else ids))
