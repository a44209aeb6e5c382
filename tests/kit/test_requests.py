"""Requests of strangers share an engine: none ends, cuts or changes another's."""

import asyncio

import numpy as np
import pytest
from driver import full_shard, generate
from exo.inference.shard import Shard
from exo_order import split
from toy import END, ToyAnswers, ToyBackend

from exo_kit.kit.contract import RequestError
from exo_kit.kit.engine import requests
from exo_kit.kit.engine.requests import Requests
from exo_kit.kit.hosts.exo_0_0 import files
from exo_kit.kit.hosts.exo_0_0.engine import EngineError
from exo_kit.models import MODELS

BACKENDS = [ToyBackend, ToyAnswers]


@pytest.fixture
def few(monkeypatch):
    """Bounds that a test reaches."""
    monkeypatch.setattr(requests, "MOST", 4)
    monkeypatch.setattr(requests, "MOST_WAITING", 2)
    monkeypatch.setattr(requests, "WAIT_SECONDS", 0.001)


class Ends:
    """In the place of a scheduler: it keeps who has ended, and in which order."""

    def __init__(self):
        self.ended = []

    def end(self, request):
        self.ended.append(request.id)

    def full(self):
        return False


@pytest.fixture
def below():
    return Ends()


@pytest.fixture
def table(below):
    return Requests(below)


async def test_newcomers_evict_no_one_who_is_active(few, table, below):
    for n in range(4):
        await table.enter(f"active{n}")
    for n in range(20):
        with pytest.raises(RequestError, match="4 requests are in flight already"):
            await table.enter(f"new{n}")
    assert list(table) == [f"active{n}" for n in range(4)]
    assert below.ended == []


async def test_a_newcomer_gets_the_room_of_one_that_ends(few, table, monkeypatch):
    monkeypatch.setattr(requests, "WAIT_SECONDS", 30.0)
    for n in range(4):
        await table.enter(f"active{n}")
    waits = asyncio.create_task(table.enter("new"))
    await asyncio.sleep(0)
    table.finish("active2")
    await waits
    assert set(table) == {"active0", "active1", "active3", "new"}


async def test_few_newcomers_wait_and_more_are_refused_at_once(few, table, monkeypatch):
    monkeypatch.setattr(requests, "WAIT_SECONDS", 30.0)
    for n in range(4):
        await table.enter(f"active{n}")
    waiting = [asyncio.create_task(table.enter(f"new{n}")) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="in flight already"):
        await asyncio.wait_for(table.enter("third"), 30)
    for n in range(2):
        table.finish(f"active{n}")
    await asyncio.gather(*waiting)
    assert len(table) == 4


async def test_only_the_long_idle_are_evicted_and_never_one_that_is_busy(few, table, below):
    records = [await table.enter(f"active{n}") for n in range(4)]
    for record in records[:2]:
        record.used -= requests.SPARED_SECONDS + 1
    with records[0]:
        await table.enter("new")
        assert below.ended == ["active1"]
    with pytest.raises(RequestError, match="nothing asked for its next step"):
        await table.enter("active1")


@pytest.mark.parametrize("ends", ["finish", "cancel", "fail", "evict"])
async def test_an_id_that_has_ended_is_refused(table, ends):
    await table.enter("r")
    rest = {"fail": ("broken", "device"), "evict": ("no room",)}.get(ends, ())
    getattr(table, ends)("r", *rest)
    with pytest.raises(RequestError, match="this request has ended"):
        await table.enter("r")


WRONG = {
    "negative": np.array([[-1]]),
    "no such token": np.array([[1 << 40]]),
    "a second prompt": np.array([[1, 2, 3]]),
    "nothing": np.zeros((1, 0), np.int64),
    "hidden states": np.zeros((1, 1, 8), np.float32),
    "two at once": np.zeros((2, 1), np.int64),
    "a prompt's bytes": np.frombuffer(b"abc", np.uint8).reshape(1, -1),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x", WRONG.values(), ids=WRONG)
async def test_a_wrong_tensor_under_somebodys_id_changes_nothing(use, model_id, backend, x):
    engine = use(backend)
    shard = full_shard(engine, model_id)
    first, _ = await engine.infer_prompt("r", shard, "abc")
    token = await engine.sample(first)
    with pytest.raises(EngineError) as caught:
        await engine.infer_tensor("r", shard, x)
    assert not caught.value.ends
    result, _ = await engine.infer_tensor("r", shard, token.reshape(1, -1))
    assert (await engine.sample(result)).item() == token.item() + 1


async def test_hidden_states_of_another_width_are_refused(use, model_id):
    engine = use(ToyBackend)
    last = split(full_shard(engine, model_id))[1]
    await engine.infer_tensor("r", last, np.zeros((1, 3, 1), np.float32))
    with pytest.raises(EngineError, match="is not this request's next step") as caught:
        await engine.infer_tensor("r", last, np.zeros((1, 1, 2), np.float32))
    assert not caught.value.ends
    await engine.infer_tensor("r", last, np.zeros((1, 1, 1), np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("prompt", ["abc", "x" * ((1 << 20) + 1)], ids=["good", "too long"])
async def test_a_prompt_under_somebodys_id_changes_nothing(use, model_id, backend, prompt):
    engine = use(backend)
    shard = full_shard(engine, model_id)
    first, _ = await engine.infer_prompt("r", shard, "mn")
    token = await engine.sample(first)
    with pytest.raises(EngineError, match="with this id is in flight") as caught:
        await engine.infer_prompt("r", shard, prompt)
    assert not caught.value.ends
    result, _ = await engine.infer_tensor("r", shard, token.reshape(1, -1))
    assert (await engine.sample(result)).item() == token.item() + 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_two_steps_of_one_id_at_once_are_one(use, model_id, backend):
    engine = use(backend)
    shard = full_shard(engine, model_id)
    prompts = [engine.infer_prompt("r", shard, "abc") for _ in range(5)]
    results = await asyncio.gather(*prompts, return_exceptions=True)
    assert sum(isinstance(one, EngineError) for one in results) == 4
    [first] = [one[0] for one in results if not isinstance(one, EngineError)]
    if backend is ToyAnswers:
        return  # its next ids are there: no step takes any time
    token = (await engine.sample(first)).reshape(1, -1)
    steps = [engine.infer_tensor("r", shard, token) for _ in range(5)]
    results = await asyncio.gather(*steps, return_exceptions=True)
    assert sum(isinstance(one, EngineError) for one in results) == 4
    assert "r" in engine.engine.requests


async def test_a_model_that_can_not_be_had_ends_no_answer(use, model_id, monkeypatch):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    result, _ = await engine.infer_prompt("r", shard, "abc")
    token = await engine.sample(result)
    for wrong in (
        Shard("nobody's", 0, 3, 4),
        Shard(model_id, 0, 0, shard.n_layers + 1),
        Shard(model_id, -1, 0, shard.n_layers),
        Shard(model_id, 2, 1, shard.n_layers),
        Shard(model_id, 0, shard.n_layers, shard.n_layers),
    ):
        with pytest.raises(EngineError):
            await engine.infer_prompt("other", wrong, "abc")
    # A known model whose files aren't there, as without a network.

    async def none(self):
        raise OSError("the hub is away")

    with monkeypatch.context() as patch:
        patch.setattr(files.ShardFiles, "tokenizer", none)
        patch.setitem(MODELS.by_id, "other", MODELS.by_id[model_id])
        patch.setattr("exo.models.get_repo", lambda *_: "organization/other")
        whole = Shard("other", 0, shard.n_layers - 1, shard.n_layers)
        with pytest.raises(EngineError, match="the hub is away"):
            await engine.infer_prompt("third", whole, "abc")
    result, _ = await engine.infer_tensor("r", shard, token.reshape(1, -1))
    assert (await engine.sample(result)).item() == token.item() + 1


async def test_many_who_come_at_once_are_all_answered(use, model_id, monkeypatch):
    monkeypatch.setattr(requests, "WAIT_SECONDS", 30.0)
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    work = [generate([engine], [shard], "xyz", request_id=f"r{n}") for n in range(200)]
    answers = await asyncio.gather(*work)
    assert [ids[-1] for ids in answers] == [END] * 200
    assert engine.engine.executor.instance.most_live <= requests.MOST
