"""The one engine, without exo: what a device of either kind can rely on, and what it may not do."""

import asyncio
import re
import threading

import numpy as np
import pytest
from running import WHOLE, Source, answer_of, count, request, until, value
from toy import END, STOP, VOCABULARY, ToyAnswers, ToyBackend, ToyBlocking, write_tokenizer

from exo_kit.kit.contract import (
    CONTRACT,
    ContractError,
    DeviceError,
    Piece,
    RequestError,
    Sampling,
)
from exo_kit.kit.engine import executor as device_module
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


async def test_the_pieces_of_one_answer_may_be_asked_for_by_several_tasks(new_runner):
    runner = await new_runner(ToyAnswers)
    answer = runner.answer(request(runner, "abc", most=3))
    pieces = [await asyncio.create_task(anext(answer)) for _ in range(3)]
    assert "".join(piece.text for piece in pieces) == "def"
