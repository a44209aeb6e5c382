"""The one engine, without exo: what a device of either kind can rely on, and what it may not do."""

import asyncio
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from running import WHOLE, Source, answer_of, count, request, until, value
from toy import END, STOP, VOCABULARY, ToyAnswers, ToyBackend, ToyBlocking, write_tokenizer

from exo_kit.kit.contract import (
    CONTRACT,
    ContractError,
    DeviceError,
    Layers,
    LoadError,
    Piece,
    RequestError,
    Sampling,
)
from exo_kit.kit.engine import executor as device_module
from exo_kit.kit.engine import thread as thread_module
from exo_kit.kit.engine.engine import Engine
from exo_kit.kit.engine.sampler import Sampler
from exo_kit.kit.engine.validation import makes_answers

BACKENDS = [ToyBackend, ToyAnswers, ToyBlocking]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_both_kinds_answer_alike(new_runner, backend):
    runner = await new_runner(backend)
    ids, text, finish = await answer_of(runner, "xyz")
    assert (text, finish) == (" <stop>", "stop")
    assert ids == [VOCABULARY.index(" "), STOP]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_limit_of_tokens_is_a_reason_to_end(new_runner, backend):
    runner = await new_runner(backend)
    assert (await answer_of(runner, "abc", most=3))[1:] == ("def", "length")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("stop", "text"), [("gh", "def"), ("d", ""), ("xq", "defghi")])
async def test_a_stop_text_ends_the_answer_and_is_not_in_it(new_runner, backend, stop, text):
    runner = await new_runner(backend)
    _, output, finish = await answer_of(runner, "abc", most=6, stop=(stop,))
    assert output == text
    assert finish == ("length" if stop == "xq" else "stop")


async def test_one_thread_makes_loads_steps_forgets_and_closes(new_runner):
    runner = await new_runner(ToyBackend)
    await answer_of(runner)
    await runner.close()
    backend = ToyBackend.made[-1]
    assert (backend.loads, backend.forgotten, backend.closed) == (1, ["request"], 1)
    assert len(set(backend.threads)) == 1
    assert threading.get_ident() not in backend.threads


async def test_answers_live_on_the_loop(new_runner):
    class Bound(ToyAnswers):
        async def load(self, model, folder, tokenizer):
            self.loop = asyncio.get_running_loop()
            await super().load(model, folder, tokenizer)

    runner = await new_runner(Bound)
    assert runner.executor.instance.loop is asyncio.get_running_loop()
    assert runner.executor.instance.model == Source.model


async def test_one_thread_does_all_that_blocks(new_runner, source):
    runner = await new_runner(ToyBlocking)
    backend = runner.executor.instance
    assert backend.folder == source.folder
    assert source.calls == [(("*.toy",), WHOLE, False)]
    await answer_of(runner)
    await runner.close()
    assert backend.events == [("begin", "request"), ("end", "request"), ("close", "")]
    assert len(set(backend.threads)) == 1
    assert threading.get_ident() not in backend.threads


async def test_answers_that_block_have_their_turns(new_runner):
    runner = await new_runner(ToyBlocking)
    names = ("one", "two", "three")
    output = await asyncio.gather(*(answer_of(runner, "abc", name=n, most=9) for n in names))
    assert [text for _, text, _ in output] == ["defghijkl"] * 3
    order = [(what, name) for name in names for what in ("begin", "end")]
    backend = runner.executor.instance
    await until(lambda: not backend.live)  # the last one's reader does not wait for its end
    assert backend.events == order


class Endless(ToyBlocking):
    """The answer of "left" has no end."""

    def answer(self, request):
        if request.id == "left":
            self.events.append(("begin", request.id))
            try:
                while True:
                    yield Piece(ids=(1,))
            finally:
                self.events.append(("end", request.id))
        yield from super().answer(request)


async def test_an_answer_that_blocks_ends_where_its_reader_leaves(new_runner):
    runner = await new_runner(Endless)
    left = runner.answer(request(runner, "a", "left"))
    await anext(left)
    waits = asyncio.ensure_future(answer_of(runner, "xyz", name="waits"))
    await left.aclose()
    assert (await waits)[1:] == (" <stop>", "stop")
    order = [(what, name) for name in ("left", "waits") for what in ("begin", "end")]
    backend = runner.executor.instance
    await until(lambda: not backend.live)
    assert backend.events == order


async def test_an_answer_under_way_is_closed_before_its_device(new_runner):
    runner = await new_runner(Endless)
    backend = runner.executor.instance
    under_way = runner.answer(request(runner, "a", "left"))
    await anext(under_way)
    await runner.close()
    assert backend.events == [("begin", "left"), ("end", "left"), ("close", "")]
    with pytest.raises(RequestError, match="the engine was closed"):
        async for _ in under_way:
            pass


async def test_a_piece_that_never_comes_is_a_device_that_hangs(new_runner, monkeypatch):
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.1")
    go_on = threading.Event()

    class Hangs(ToyBlocking):
        def answer(self, request):
            yield from ()
            assert go_on.wait(30)

    runner = await new_runner(Hangs)
    for name in ("first", "second"):
        with pytest.raises(DeviceError, match=r"has not come back"):
            await answer_of(runner, name=name)
    go_on.set()


async def test_making_a_runner_touches_no_device(new_runner):
    before = len(ToyBackend.made)
    await new_runner(ToyBackend, load=False)
    assert len(ToyBackend.made) == before


@pytest.mark.parametrize("contract", [0, CONTRACT + 1, None, "1", True])
def test_a_wrong_contract_is_one_sentence(contract):
    with pytest.raises(ContractError, match=rf"^Odd in backend.py says contract = {contract!r}, "):
        Engine(type("Odd", (ToyBackend,), {"contract": contract}))


@pytest.mark.parametrize(("backend", "missing"), [(ToyBackend, "forget"), (ToyAnswers, "close")])
def test_a_missing_member_is_named(backend, missing):
    members = {k: v for k, v in vars(backend).items() if k != missing and k != "__dict__"}
    with pytest.raises(ContractError, match=rf"^Odd in backend\.py has no {missing}:"):
        makes_answers(type("Odd", (), members))


def test_files_are_a_tuple():
    with pytest.raises(ContractError, match=r"files of Odd .* a tuple"):
        makes_answers(type("Odd", (ToyBackend,), {"files": "*.json"}))


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (None, "a NoneType"),
        (4, "a int"),
        (np.array([[4.0]]), "float64 (1, 1)"),
        (np.array([4]), "int64 (1,)"),
        (np.array([[-1]]), "int64 (1, 1) of [-1]"),
        (np.zeros((1, len(VOCABULARY)), np.float32), "float32 (1, "),
        (np.zeros((1, 1, 8), np.float32), "float32 (1, 1, 8), too few logits for"),
        (np.zeros((2, 1, len(VOCABULARY)), np.float32), "float32 (2, 1, "),
    ],
)
async def test_what_step_may_not_give_is_refused(new_runner, output, sentence):
    runner = await new_runner(type("Odd", (ToyBackend,), {"step": lambda *_: output}))
    with pytest.raises(ContractError, match=re.escape(f"step() in backend.py gave {sentence}")):
        await answer_of(runner)


async def test_a_step_that_is_async_is_refused(new_runner):
    class Odd(ToyBackend):
        async def step(self, request_id, x):
            return x

    runner = await new_runner(Odd)
    with pytest.raises(ContractError, match="gave a coroutine"):
        await answer_of(runner)


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


async def test_every_eos_id_ends_and_is_the_one_that_the_host_knows(new_runner, source):
    write_tokenizer("organization/toy", END, also=(STOP,))
    runner = await new_runner(ToyBackend)
    assert runner.pick(np.array([[STOP]]), Sampler(Sampling())) == END
    assert (await answer_of(runner, "xyz"))[1:] == (" ", "stop")


async def test_an_eos_id_of_zero_ends(new_runner, source):
    write_tokenizer("organization/toy", 0, also=(STOP,))
    runner = await new_runner(ToyBackend)
    assert (await answer_of(runner, "xyz"))[1:] == (" ", "stop")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_closing_an_answer_cancels_it(new_runner, backend):
    runner = await new_runner(backend)
    cancelled = count("cancelled")
    answer = runner.answer(request(runner, "abc"))
    await anext(answer)
    await answer.aclose()
    device = runner.executor.instance
    await until(lambda: not device.live)
    assert count("cancelled") == cancelled + 1
    assert value("requests_in_flight") == 0
    if backend is ToyAnswers:
        assert device.requests[-1].max_tokens == 64
    elif backend is ToyBackend:
        assert device.forgotten == ["request"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_evicted_answer_ends_with_the_reason(new_runner, backend):
    runner = await new_runner(backend)
    answer = runner.answer(request(runner, "abc"))
    await anext(answer)
    runner.requests.evict("request", "there was no room")
    with pytest.raises(RequestError, match="there was no room"):
        async for _ in answer:
            pass
    await until(lambda: not runner.executor.instance.live)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_error_ends_its_request_once_and_no_other(new_runner, backend):
    def broken(self, *args):
        if "bad" in str(args):
            raise OSError("the device went away")
        return getattr(backend, name)(self, *args)

    name = "step" if backend is ToyBackend else "answer"
    runner = await new_runner(type("Flaky", (backend,), {name: broken}))
    failed, finished = count("failed", "device"), count("finished")
    work = [answer_of(runner, "xyz", name) for name in ("good", "bad")]
    good, bad = await asyncio.gather(*work, return_exceptions=True)
    assert good[1] == " <stop>"
    assert str(bad) == "the device went away"
    assert (count("failed", "device"), count("finished")) == (failed + 1, finished + 1)
    assert value("requests_in_flight") == 0


async def test_backend_up_tells_a_failure_and_the_recovery_without_traffic(new_runner, monkeypatch):
    monkeypatch.setattr(device_module, "CHECK_SECONDS", 0.01)

    class Flaky(ToyBackend):
        broken = True

        def step(self, request_id, x):
            if self.broken:
                raise OSError("the device went away")
            return super().step(request_id, x)

        def check(self):
            if self.broken:
                raise OSError("the device went away")
            return "back"

    runner = await new_runner(Flaky)
    with pytest.raises(OSError, match="went away"):
        await answer_of(runner)
    assert value("backend_up") == 0
    Flaky.broken = False
    await until(lambda: value("backend_up") == 1)


async def test_a_fault_of_the_request_leaves_the_device_up(new_runner):
    class Short(ToyBackend):
        def step(self, request_id, x):
            if x.shape[1] > 3:
                raise ValueError("the prompt is too long")
            return super().step(request_id, x)

    runner = await new_runner(Short)
    await answer_of(runner, "abc", most=1)
    failed = count("failed", "request")
    with pytest.raises(ValueError, match="too long"):
        await answer_of(runner, "abcd", "long")
    assert value("backend_up") == 1
    assert count("failed", "request") == failed + 1


class Hanging(ToyBackend):
    """Hangs in the steps of one request."""

    entered, released = threading.Event(), threading.Event()

    def step(self, request_id, x):
        if request_id == "hangs":
            self.entered.set()
            self.released.wait(30)
        return super().step(request_id, x)


@pytest.fixture
async def hanging(new_runner, monkeypatch):
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.05")
    Hanging.entered.clear()
    Hanging.released.clear()
    yield await new_runner(Hanging)
    Hanging.released.set()


async def test_a_hung_device_ends_its_requests_and_is_told(hanging, caplog, monkeypatch):
    async with asyncio.timeout(30):
        with pytest.raises(DeviceError, match="not come back from a step within"):
            await answer_of(hanging, "abc", "hangs")
        with pytest.raises(DeviceError, match="not come back"):
            await answer_of(hanging, "abc", "another")
    assert value("backend_up") == 0
    assert [r.message for r in caplog.records if "hangs in a step" in r.message] != []
    Hanging.released.set()
    await until(lambda: value("backend_up") == 1)
    monkeypatch.setattr(hanging.executor, "_seconds", 30.0)  # a busy machine is no hung device
    assert (await answer_of(hanging, "abc", "third", 1))[1] == "d"


async def test_a_hung_device_loads_nothing_else(hanging, source):
    with pytest.raises(DeviceError):
        await answer_of(hanging, "abc", "hangs")
    with pytest.raises(LoadError, match="the device hangs in a step"):
        async with asyncio.timeout(30):
            await hanging.load(Layers("toy", 0, 1, 4), source)


async def test_closing_does_not_wait_for_a_hung_device(hanging):
    with pytest.raises(DeviceError):
        await answer_of(hanging, "abc", "hangs")
    async with asyncio.timeout(30):
        await hanging.close(0.05)
    assert not Hanging.released.is_set()


async def test_a_long_queue_is_no_hung_device(new_runner, monkeypatch):
    """By a clock that the steps alone move; each is looked at after it has moved it."""
    monkeypatch.setenv(f"{device_module.settings.PREFIX}STEP_SECONDS", "0.05")
    now, looked = [0.0], threading.Event()
    monkeypatch.setattr(thread_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(ToyBackend):
        def step(self, request_id, x):
            now[0] += 0.03
            looked.clear()
            assert looked.wait(30)
            return super().step(request_id, x)

    runner = await new_runner(Slow)
    watch = runner.executor._thread._watch

    def look():
        watch()
        looked.set()

    monkeypatch.setattr(runner.executor._thread, "_watch", look)
    answers = await asyncio.gather(*(answer_of(runner, "abc", str(n), 1) for n in range(4)))
    assert {text for _, text, _ in answers} == {"d"}


async def test_a_backend_that_fails_to_let_go_ends_nobody_else(new_runner, caplog):
    class Clumsy(ToyBackend):
        def forget(self, request_id):
            raise OSError("cannot forget")

    runner = await new_runner(Clumsy)
    await answer_of(runner)
    assert (await answer_of(runner, "abc", "other", 1))[1] == "d"
    await runner.close()
    assert "failed to let go" in caplog.text


async def test_the_pieces_of_one_answer_may_be_asked_for_by_several_tasks(new_runner):
    runner = await new_runner(ToyAnswers)
    answer = runner.answer(request(runner, "abc", most=3))
    pieces = [await asyncio.create_task(anext(answer)) for _ in range(3)]
    assert "".join(piece.text for piece in pieces) == "def"
