"""What a load does: once for many, whole or not at all, and what waits for it."""

import asyncio
import threading

import numpy as np
import pytest
from running import WHOLE, answer_of, count, until, value
from toy import ToyBackend

from exo_kit.kit.contract import (
    Layers,
    LoadError,
    RequestError,
)
from exo_kit.kit.engine import executor as device_module


async def test_loading_the_same_again_does_nothing(new_runner, source):
    runner = await new_runner(ToyBackend)
    await asyncio.gather(*(runner.load(WHOLE, source) for _ in range(5)))
    assert ToyBackend.made[-1].loads == 1
    assert runner.executor.instance is ToyBackend.made[-1]


async def test_many_who_load_at_once_load_once(new_runner, source):
    runner = await new_runner(ToyBackend, load=False)
    before = len(ToyBackend.made)
    await asyncio.gather(*(runner.load(WHOLE, source) for _ in range(5)))
    assert len(ToyBackend.made) == before + 1


async def test_a_caller_that_goes_away_leaves_no_half_load(new_runner, source):
    entered, released = threading.Event(), threading.Event()

    class Slow(ToyBackend):
        def load(self, layers, folder, tokenizer):
            entered.set()
            assert released.wait(30)
            super().load(layers, folder, tokenizer)

    runner = await new_runner(Slow, load=False)
    gone = asyncio.ensure_future(runner.load(WHOLE, source))
    await until(entered.is_set)
    gone.cancel()
    released.set()
    await runner.load(WHOLE, source)
    assert ToyBackend.made[-1].loads == 1


async def test_a_failed_load_says_why_and_leaves_nothing(new_runner, source):
    class Broken(ToyBackend):
        broken = True

        def load(self, layers, folder, tokenizer):
            if self.broken:
                raise OSError("no device")
            super().load(layers, folder, tokenizer)

    runner = await new_runner(Broken, load=False)
    with pytest.raises(LoadError, match=r"^could not load toy: no device$"):
        await runner.load(WHOLE, source)
    assert runner.layers is None
    assert runner.executor.instance is None
    assert ToyBackend.made[-1].closed == 1
    assert value("backend_up") == 0
    Broken.broken = False
    await runner.load(WHOLE, source)
    assert (await answer_of(runner, "abc", most=1))[1] == "d"


async def test_other_layers_close_the_old_instance_and_end_its_requests(new_runner, source):
    runner = await new_runner(ToyBackend)
    old = ToyBackend.made[-1]
    await runner.step("r", np.array([[1, 2]]))
    evicted = count("evicted")
    await runner.load(Layers("toy", 0, 1, 4), source)
    assert (old.closed, old.forgotten) == (1, ["r"])
    assert ToyBackend.made[-1] is not old
    assert count("evicted") == evicted + 1
    with pytest.raises(RequestError, match="the cluster changed"):
        await runner.step("r", np.array([[3]]))


async def test_another_model_waits_for_the_answers_in_flight(new_runner, source, monkeypatch):
    runner = await new_runner(ToyBackend)
    await runner.step("r", np.array([[1, 2]]))
    other = asyncio.ensure_future(runner.load(Layers("other", 0, 3, 4), source))
    for _ in range(10):
        await asyncio.sleep(0)
    assert runner.layers == WHOLE
    await runner.step("r", np.array([[3]]))
    runner.requests.finish("r")
    await other
    assert runner.layers == Layers("other", 0, 3, 4)


async def test_another_model_does_not_wait_for_ever(new_runner, source, monkeypatch):
    monkeypatch.setenv(f"{device_module.settings.PREFIX}DRAIN_SECONDS", "0.01")
    runner = await new_runner(ToyBackend)
    await runner.step("r", np.array([[1, 2]]))
    await runner.load(Layers("other", 0, 3, 4), source)
    with pytest.raises(RequestError, match="other was loaded"):
        await runner.step("r", np.array([[3]]))


async def test_files_are_asked_for_where_the_backend_names_some(new_runner, source):
    runner = await new_runner(type("Files", (ToyBackend,), {"files": ("*.bin",)}))
    assert source.calls == [(("*.bin",), WHOLE, False)]
    assert runner.executor.instance.folder == source.folder


async def test_a_file_that_the_host_left_out_is_fetched(new_runner, source):
    class Tied(ToyBackend):
        files = ("*.bin",)

        def load(self, layers, folder, tokenizer):
            if not any(everything for *_, everything in source.calls):
                raise FileNotFoundError("model-00001.bin")
            super().load(layers, folder, tokenizer)

    runner = await new_runner(Tied)
    assert [everything for *_, everything in source.calls] == [False, True]
    assert runner.executor.instance.loads == 1
