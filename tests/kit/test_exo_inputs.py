"""What exo may send a node: which inputs are refused, with a sentence, and end no request."""

import numpy as np
import pytest
from driver import full_shard, generate
from exo_order import split, wire
from toy import KINDS, ToyAnswers, ToyBackend

from exo_kit.kit.engine import prompts
from exo_kit.kit.hosts.exo_0_0.engine import EngineError


@pytest.mark.parametrize("backend", KINDS)
async def test_an_ended_requests_late_step_is_refused(use, model_id, backend):
    engine = use(backend)
    shard = full_shard(engine, model_id)
    await generate([engine], [shard], "xyz", request_id="r")
    with pytest.raises(EngineError, match="ended"):
        await engine.infer_tensor("r", shard, np.array([[4]]))


@pytest.mark.parametrize("backend", KINDS)
@pytest.mark.parametrize(
    "x",
    [
        np.array([[-1, 2]]),
        np.array([1, 2]),
        np.array([[1.0, 2.0]]),
        np.zeros((1, 3, 8), np.float32),
        np.zeros((1, 0), np.int64),
        np.zeros((2, 3), np.int64),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
async def test_an_input_that_does_not_fit_the_layers_is_refused(use, model_id, backend, x):
    engine = use(backend)
    shard = full_shard(engine, model_id)
    with pytest.raises(EngineError, match=r"takes token ids .* Send the request again"):
        await engine.infer_tensor("r", shard, wire(x) if x.size else x)
    assert await generate([engine], [shard], "xyz", request_id="other") != []


async def test_ids_are_refused_where_hidden_states_come(use, model_id):
    engine = use(ToyBackend)
    last = split(full_shard(engine, model_id))[1]
    with pytest.raises(EngineError, match="takes hidden states"):
        await engine.infer_tensor("r", last, np.array([[1, 2]]))


async def test_a_bad_tensor_ends_no_request_of_that_id(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    await engine.infer_prompt("r", shard, "abc")
    with pytest.raises(EngineError):
        await engine.infer_tensor("r", shard, np.array([[-1]]))
    result, _ = await engine.infer_tensor("r", shard, np.array([[4]]))
    assert result.argmax() == 5


async def test_a_node_that_has_not_seen_the_prompt_does_not_start_anew(use, model_id):
    engine = use(ToyBackend)
    last = split(full_shard(engine, model_id))[1]
    with pytest.raises(EngineError, match="has not seen the beginning"):
        await engine.infer_tensor("r", last, np.zeros((1, 1, 1), np.float32))


@pytest.mark.parametrize("backend", [ToyBackend, ToyAnswers])
async def test_an_empty_prompt_is_a_sentence(use, model_id, backend):
    engine = use(backend)
    with pytest.raises(EngineError, match="the prompt is empty"):
        await engine.infer_prompt("request", full_shard(engine, model_id), "")
    assert "request" not in engine.engine.requests


async def test_a_prompt_without_end_is_refused_before_it_is_tokenized(use, model_id, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_CHARACTERS", 10)
    engine = use(ToyBackend)
    with pytest.raises(EngineError, match="too long: 11 characters, of 10"):
        await engine.infer_prompt("r", full_shard(engine, model_id), "a" * 11)
