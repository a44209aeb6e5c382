"""What a node of exo 0.0 does with an engine, and expects of it."""

import asyncio
import threading

import numpy as np
from driver import full_shard, generate
from exo_order import pick, split, wire
from toy import END, ToyBackend


async def test_ensure_shard_remembers_its_shard(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    await engine.ensure_shard(shard)
    assert engine.shard == shard


async def test_sample_takes_a_temperature(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    result, _ = await engine.infer_prompt("r", shard, "abc")
    token, number = await pick(engine, shard, result)
    assert token.shape == (1,)
    assert number == 4


async def test_the_attributes_that_exo_reads(use, model_id, downloader):
    engine = use(ToyBackend)
    assert engine.shard is None
    assert engine.shard_downloader is downloader
    await engine.ensure_shard(full_shard(engine, model_id))
    assert engine.tokenizer.eos_token_id == END
    assert engine.tokenizer.decode(engine.tokenizer.encode("abc")) == "abc"


async def test_no_state_is_put_on_the_wire(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    for number, state in enumerate((None, {})):
        _, returned = await engine.infer_prompt(f"r{number}", shard, "abc", state)
        assert returned is state
        assert not returned


async def test_read_only_arrays_are_enough(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    x = wire(np.array([[1, 2, 3]]))
    assert not x.flags.writeable
    result, _ = await engine.infer_tensor("r", shard, x)
    assert (await engine.sample(wire(result), temp=0.0)).item() == 4
    assert (await engine.sample(wire(result), temp=1.0, top_p=0.9)).shape == (1,)


async def test_a_session_is_one_engines_own(new_engine):
    one, other = new_engine(), new_engine()
    await one.save_session("key", "value")
    assert one.session == {"key": "value"}
    assert other.session == {}
    await one.clear_session()
    assert one.session == {}


async def test_a_blocking_device_does_not_block_the_loop(use, model_id):
    entered, released, in_time = threading.Event(), threading.Event(), []

    class Blocking(ToyBackend):
        def step(self, request_id, x):
            entered.set()
            in_time.append(released.wait(30))
            return super().step(request_id, x)

    engine = use(Blocking)
    step = asyncio.ensure_future(engine.infer_prompt("r", full_shard(engine, model_id), "abc"))
    assert await asyncio.to_thread(entered.wait, 30)
    released.set()
    await step
    assert in_time == [True]


async def test_requests_interleave(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    work = [generate([engine], [shard], prompt, request_id=prompt) for prompt in ("a", "m", "x")]
    answers = await asyncio.gather(*work)
    assert [ids[0] for ids in answers] == [2, 14, 25]
    assert all(ids[-1] == END for ids in answers)


async def test_a_partial_shard_gives_what_the_whole_gives(use, model_id):
    one, left, right = use(ToyBackend), use(ToyBackend), use(ToyBackend)
    full = full_shard(one, model_id)
    first, last = split(full)
    alone, _ = await one.infer_prompt("r", full, "abc")
    hidden, _ = await left.infer_prompt("r", first, "abc")
    together, _ = await right.infer_tensor("r", last, wire(hidden))
    np.testing.assert_array_equal(together, alone)
