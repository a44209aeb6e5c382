"""Calls engines in exo's order, with exo's models, and looks at the state that comes back."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import exo_order
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


def check_state(sent: Any, returned: Any) -> None:
    """Fail where an engine touched the state, or put in what JSON can't carry."""
    assert returned == sent, "inference_state must pass through untouched"
    assert json.loads(json.dumps(returned)) == sent, "inference_state must survive the wire"


def checked_step(request_id: str = "request", state: Any = None) -> exo_order.Step:
    """Return a step of exo's order that fails where an engine doesn't pass the state through."""

    async def step(engine: Any, name: str, shard: Shard, x: Any) -> Array:
        before = json.loads(json.dumps(state))
        result, returned = await getattr(engine, name)(request_id, shard, x, state)
        check_state(before, returned)
        assert isinstance(result, np.ndarray)
        return result

    return step


async def generate(
    engines: Sequence[Any],
    shards: Sequence[Shard],
    prompt: str,
    max_tokens: int = 64,
    request_id: str = "request",
    state: Any = None,
) -> list[int]:
    """Answer a prompt on one node or several; return the ids, the EOS id among them."""
    step = checked_step(request_id, state)
    return [int(n) async for n in exo_order.answer(engines, shards, prompt, max_tokens, step)]


def text_of(engine: Any, ids: list[int]) -> str:
    """Return an answer's text, without the EOS that ends it."""
    ended = ids and ids[-1] == engine.tokenizer.eos_token_id
    return str(engine.tokenizer.decode(ids[:-1] if ended else ids))
