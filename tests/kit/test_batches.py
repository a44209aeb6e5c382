"""Many at once: whose steps go together, who is waited for, and what ends whom."""

import asyncio
import threading

import numpy as np
import pytest
from running import answer_of, until, value
from toy import ToyBackend, ToyMany

from exo_kit.kit.contract import ContractError, DeviceError, Layers, RequestError
from exo_kit.kit.engine import executor as device_module
from exo_kit.kit.engine import scheduler as batches

ONE = np.array([[3]])


class Held(ToyMany):
    """The steps of request "first" take until they are let go."""

    def __init__(self):
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def _step(self, request_id, x):
        if request_id == "first":
            self.entered.set()
            assert self.go_on.wait(30)
        if request_id == "bad":
            raise self.error("bad words")
        return super()._step(request_id, x)

    error = ValueError


@pytest.fixture
async def held(new_runner):
    """A runner with a busy device, and its instance."""
    runner = await new_runner(Held)
    device = runner.executor.instance
    first = asyncio.ensure_future(runner.step("first", ONE))
    await until(device.entered.is_set)
    yield runner, device
    device.go_on.set()
    await first


async def steps(runner, device, work):
    """The outcomes of steps that came while the device was busy."""
    waiting = [asyncio.ensure_future(runner.step(name, x)) for name, x in work]
    for _ in range(5):
        await asyncio.sleep(0)
    device.go_on.set()
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_steps_that_wait_while_the_device_is_busy_go_together(held):
    await steps(*held, [(name, ONE) for name in "abc"])
    assert held[1].batches == [[("first", 1)], [("a", 1), ("b", 1), ("c", 1)]]
    assert len(set(held[1].threads)) == 1


async def test_one_prompt_at_most_goes_with_them(held):
    long = np.array([[1, 2, 3]])
    await steps(*held, [("a", ONE), ("p", long), ("q", long), ("b", ONE)])
    assert held[1].batches[1:] == [[("a", 1), ("p", 3), ("b", 1)], [("q", 3)]]


async def test_a_device_that_takes_no_batches_gets_step_after_step(new_runner):
    runner = await new_runner(ToyBackend)
    answers = await asyncio.gather(*(answer_of(runner, "abc", name, 3) for name in "abc"))
    assert [text for _, text, _ in answers] == ["def"] * 3


@pytest.mark.parametrize("whole", [False, True], ids=["its own", "of all"])
async def test_an_error_in_a_batch_ends_one_request_alone(held, monkeypatch, whole):
    runner, device = held
    if whole:  # which is no error that step_batch gives in a request's place
        monkeypatch.setattr(Held, "error", OSError)
    good, bad, other = await steps(runner, device, [(name, ONE) for name in ("a", "bad", "b")])
    assert str(bad) == "bad words"
    assert good.shape == other.shape
    assert all(len(device.states[name]) == 1 + whole for name in ("a",))
    assert len(device.batches) == (5 if whole else 2)


async def test_a_batch_that_gives_too_little_is_told(held, monkeypatch):
    monkeypatch.setattr(Held, "step_batch", lambda self, steps: [])
    results = await steps(*held, [("a", ONE), ("b", ONE)])
    assert {type(error) for error in results} == {ContractError}
    assert str(results[0]).startswith("step_batch() in backend.py gave list for 2 steps")


async def test_a_request_that_ends_while_its_step_waits_is_never_stepped(held):
    runner, device = held
    gone, stays = (asyncio.ensure_future(runner.step(name, ONE)) for name in ("gone", "stays"))
    await until(lambda: "stays" in runner.requests)
    runner.requests.evict("gone", "there was no room")
    with pytest.raises(RequestError, match="there was no room"):
        await gone
    device.go_on.set()
    await stays
    await until(lambda: "gone" in device.forgotten)
    assert device.batches == [[("first", 1)], [("stays", 1)]]
    assert "gone" not in device.states


async def test_a_step_that_nobody_awaits_any_more_is_left_out(held):
    runner, device = held
    gone, stays = (asyncio.ensure_future(runner.step(name, ONE)) for name in ("gone", "stays"))
    await until(lambda: "stays" in runner.requests)
    gone.cancel()
    device.go_on.set()
    await stays
    assert device.batches[1:] == [[("stays", 1)]]


async def test_a_hung_device_ends_those_who_wait_too(new_runner, monkeypatch):
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.05")
    runner = await new_runner(Held)
    device = runner.executor.instance
    work = [asyncio.ensure_future(runner.step(name, ONE)) for name in ("first", "a", "b")]
    async with asyncio.timeout(30):
        results = await asyncio.gather(*work, return_exceptions=True)
    assert {type(error) for error in results} == {DeviceError}
    assert device.batches == [[("first", 1)]]
    device.go_on.set()


@pytest.fixture
def patient(monkeypatch):
    """Who was just served is waited for: longer than any test takes."""
    monkeypatch.setattr(batches, "WAIT_SECONDS", 1000.0)
    monkeypatch.setattr(batches, "WAIT_SHARE", 1e9)


async def user(runner, name, count, pause):
    """Steps one after the other, each some turns of the loop after the last came."""
    for _ in range(count):
        await runner.step(name, ONE)
        for _ in range(pause):
            await asyncio.sleep(0)
    runner.requests.finish(name)


async def test_those_who_were_just_served_are_waited_for(new_runner, patient):
    runner = await new_runner(Held)
    device = runner.executor.instance
    users = [asyncio.ensure_future(user(runner, *who)) for who in (("first", 6, 9), ("a", 6, 1))]
    await until(device.entered.is_set)
    device.go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*users)
    assert [len(batch) for batch in device.batches] == [1, 2, 2, 2, 2, 2, 1]


async def test_one_user_alone_waits_for_nobody(new_runner, patient):
    runner = await new_runner(ToyMany)
    async with asyncio.timeout(30):
        await user(runner, "a", 20, 3)
        await asyncio.gather(*(user(runner, name, 5, 2) for name in "bc"))  # one ends first
        await user(runner, "d", 20, 3)


async def test_who_does_not_come_back_is_not_waited_for_long(new_runner):
    runner = await new_runner(ToyMany)
    async with asyncio.timeout(30):
        await asyncio.gather(*(runner.step(name, ONE) for name in "abc"))
        for _ in range(5):
            await asyncio.gather(*(runner.step(name, ONE) for name in "ab"))


async def test_batches_and_waits_are_counted(held):
    before = value("batch_size_count"), value("batch_size_sum")
    await steps(*held, [(name, ONE) for name in "abc"])
    assert (value("batch_size_count"), value("batch_size_sum")) == (before[0] + 2, before[1] + 4)
    assert value("steps_queued") == 0


class Blocks(ToyMany):
    """A device with a longest step and a context."""

    block, context = 4, 50


@pytest.mark.parametrize(("length", "slices"), [(3, [3]), (4, [4]), (9, [4, 4, 1])])
async def test_a_long_prompt_comes_in_slices(new_runner, length, slices):
    plain, cut = await new_runner(ToyMany), await new_runner(Blocks)
    prompt = "abcdefghi"[:length]
    assert await answer_of(cut, prompt, "r", 4) == await answer_of(plain, prompt, "r", 4)
    sizes = [rows for batch in cut.executor.instance.batches for _, rows in batch]
    assert sizes == [*slices, 1, 1, 1]


async def test_others_go_on_between_the_slices(new_runner, patient):
    class Noisy(Blocks):
        def _step(self, request_id, x):
            threading.Event().wait(0.005)
            return super()._step(request_id, x)

    runner = await new_runner(Noisy)
    device = runner.executor.instance
    answer = asyncio.ensure_future(answer_of(runner, "ab", "talks", 40))
    await until(lambda: len(device.batches) > 2)
    await answer_of(runner, 40 * "x", "long", 1)
    shared = [batch for batch in device.batches if ("long", 4) in batch]
    assert len(shared) == 10
    assert sum(len(batch) > 1 for batch in shared) >= 9  # the first may come alone
    assert (await answer)[2] == "length"


async def test_slices_of_hidden_states_come_back_whole(new_runner):
    plain, cut = [
        await new_runner(backend, layers=Layers("toy", 0, 1, 4)) for backend in (ToyMany, Blocks)
    ]
    ids = np.arange(10)[None]
    hidden = await cut.step("r", ids)
    assert hidden.shape == (1, 10, 1)
    np.testing.assert_array_equal(hidden, await plain.step("r", ids))
    assert len(cut.executor.instance.batches) == 3


async def test_a_prompt_longer_than_the_context_is_refused_before_it_begins(new_runner):
    runner = await new_runner(Blocks)
    with pytest.raises(ValueError, match=r"there are 51 tokens, and .* context ends at 50"):
        await answer_of(runner, 51 * "x")
    assert runner.executor.instance.batches == []


@pytest.mark.parametrize("block", [0, "96", True])
async def test_a_block_that_is_no_length_fails_the_load(new_runner, block):
    with pytest.raises(Exception, match=r"block in backend\.py is .* a whole number above 0"):
        await new_runner(type("Odd", (ToyMany,), {"block": block}))
