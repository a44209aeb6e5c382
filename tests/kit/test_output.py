"""What a host gets of a backend's pieces: limits, ends, usage, and text where it reads some."""

import asyncio
import itertools

import numpy as np
import pytest
from running import answer_of, request, value
from toy import END, STOP, ToyAnswers, ToyMany

from exo_kit.kit.contract import RequestError, Sampling, ToolCall, Usage

NUMBERS = itertools.count()


class Scripted(ToyAnswers):
    """Says the pieces of its class."""

    pieces = ()

    async def answer(self, request):
        for members in self.pieces:
            yield self.piece(**members)


@pytest.fixture
def saying(new_runner):
    """Function `saying(*pieces)`: a runner whose device says these pieces."""

    async def make(*pieces):
        return await new_runner(type("Says", (Scripted,), {"pieces": pieces}))

    return make


async def pieces_of(runner, most=64, text=True, **members):
    name = f"request {next(NUMBERS)}"
    answer = runner.answer(request(runner, "abc", name, most, **members), text)
    return [piece async for piece in answer]


async def test_more_ids_than_were_asked_for_are_never_looked_at(saying, monkeypatch):
    runner = await saying({"ids": (1, 2)}, {"ids": (3,) * 300_000}, {"ids": (4,)})
    pieces = await pieces_of(runner, most=10)
    assert [piece.ids for piece in pieces] == [(1, 2), (3,) * 8]
    assert [piece.finish for piece in pieces] == [None, "length"]
    assert pieces[-1].usage == Usage(3, 10)


async def test_text_without_an_end_is_bounded_too(saying):
    runner = await saying(*[{"text": "x"}] * 1000)
    pieces = await pieces_of(runner, most=10)
    assert "".join(piece.text for piece in pieces) == "x" * 40
    assert pieces[-1].finish == "length"


async def test_a_servers_own_usage_wins(saying):
    usage = Usage(30, 20, reasoning_tokens=10)
    runner = await saying({"text": "xy"}, {"finish": "stop", "usage": usage})
    assert (await pieces_of(runner))[-1].usage == usage


async def test_reasoning_is_counted(saying):
    runner = await saying({"ids": (1, 2), "thinking": True}, {"ids": (3,)}, {"finish": "stop"})
    assert (await pieces_of(runner))[-1].usage == Usage(3, 3, 0, 2)


async def test_an_end_token_ends_and_is_not_counted(saying):
    runner = await saying({"ids": (1, STOP, END, 7)}, {"ids": (7,)})
    [piece] = await pieces_of(runner)
    assert (piece.ids, piece.finish, piece.usage) == ((1, STOP), "stop", Usage(3, 2))


@pytest.mark.parametrize("stop", [(), ("none",)])
async def test_a_host_that_reads_ids_has_none_decoded_but_for_stop_texts(new_runner, stop):
    runner = await new_runner(ToyMany)
    decode, decoded = runner.tokenizer.decode, []
    object.__setattr__(runner.tokenizer, "decode", lambda ids: decoded.append(ids) or decode(ids))
    pieces = await pieces_of(runner, most=5, text=False, stop=stop)
    assert sum(len(piece.ids) for piece in pieces) == 5
    assert bool(decoded) is bool(stop)


class Short(ToyMany):
    """A device with a context."""

    context = 12


@pytest.mark.parametrize(
    ("prompt", "most", "length"), [(8, 64, 5), (8, 3, 3), (12, 64, 1), (11, 64, 2)]
)
async def test_an_answer_that_fills_the_context_ends_with_length(new_runner, prompt, most, length):
    runner = await new_runner(Short)
    failed = value("requests_total")
    ids, _, finish = await answer_of(runner, "a" * prompt, most=most)
    assert (len(ids), finish) == (length, "length")
    assert sum(rows for batch in runner.executor.instance.batches for _, rows in batch) <= 12
    assert value("requests_total") == failed


TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'


async def test_reasoning_in_a_text_is_told_apart_and_its_ids_counted(saying):
    runner = await saying({"text": "<think>h", "ids": (1, 2)}, {"text": "m</think>y", "ids": (3,)})
    pieces = await pieces_of(runner)
    assert [(piece.text, piece.thinking, piece.ids) for piece in pieces] == [
        ("h", True, (1, 2)),
        ("m", True, (3,)),
        ("y", False, ()),
        ("", False, ()),
    ]
    assert pieces[-1].usage == Usage(3, 3, 0, 3)
    raw = await pieces_of(runner, text=False)
    assert "".join(piece.text for piece in raw) == "<think>hm</think>y"


async def test_calls_come_with_the_last_piece(saying):
    runner = await saying({"text": f"so {CALL}"}, {"text": CALL, "finish": "stop"})
    pieces = await pieces_of(runner, tools=TOOLS)
    assert [(piece.text, piece.finish) for piece in pieces] == [("so ", None), ("", "tool_calls")]
    calls = pieces[-1].tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("f", '{"x": 1}')] * 2
    assert len({call.id for call in calls}) == 2
    assert "".join(p.text for p in await pieces_of(runner)) == f"so {CALL}{CALL}"  # without tools


async def test_a_servers_calls_and_the_texts_come_together(saying):
    call = ToolCall("a", "g", "{}")
    runner = await saying({"tool_calls": (call,)}, {"text": CALL}, {"finish": "length"})
    pieces = await pieces_of(runner, tools=TOOLS)
    assert pieces[-1].finish == "length"
    assert [c.name for c in pieces[-1].tool_calls] == ["g", "f"]
    assert not any(piece.tool_calls for piece in pieces[:-1])


async def test_half_a_call_at_the_end_is_text(saying):
    runner = await saying({"text": CALL[:-20]}, {"finish": "length"})
    pieces = await pieces_of(runner, tools=TOOLS)
    assert ("".join(piece.text for piece in pieces), pieces[-1].tool_calls) == (CALL[:-20], ())


async def test_logprobs_come_with_their_ids(new_runner):
    runner = await new_runner(ToyMany)
    pieces = await pieces_of(runner, most=3, sampling=Sampling(logprobs=2))
    for piece in pieces[:3]:
        [logprob] = piece.logprobs
        assert (logprob.id,) == piece.ids
        assert logprob.top[0] == (logprob.id, logprob.logprob)
        assert len(logprob.top) == 2
    assert not any(piece.logprobs for piece in await pieces_of(runner, most=3))


@pytest.mark.parametrize("base", [ToyMany, ToyAnswers])
async def test_what_a_backend_cannot_do_is_refused_or_told_once(new_runner, caplog, base):
    limits = {"unsupported": ("tools", "logprobs", "top_k", "seed")}
    runner = await new_runner(type("Limited", (base,), limits))
    with pytest.raises(RequestError, match="backend has no tools: send"):
        await pieces_of(runner, tools=TOOLS)
    for _ in range(2):
        await pieces_of(runner, most=2, sampling=Sampling(top_k=3, seed=1, top_p=0.9, logprobs=0))
    warnings = [record.getMessage() for record in caplog.records if "heed" in record.getMessage()]
    assert warnings == ["toy: this engine's backend does not heed logprobs, seed, top_k"]


async def test_a_device_that_samples_says_what_it_does_not_heed(new_runner, caplog):
    class Samples(ToyMany):
        def step(self, request_id, x):
            super().step(request_id, x)
            return np.array([[5]])

    runner = await new_runner(Samples)
    for _ in range(2):
        sampling = Sampling(temperature=1.0, min_p=0.1, logprobs=1)
        pieces = await pieces_of(runner, most=3, sampling=sampling)
        assert not any(piece.logprobs for piece in pieces)
    warnings = [record.getMessage() for record in caplog.records if "heed" in record.getMessage()]
    assert warnings == [
        "toy: the device chooses the tokens itself, and does not heed logprobs, min_p, temperature"
    ]


async def test_an_answer_of_a_server_has_no_logprobs_unless_it_says_so(new_runner, caplog):
    for members, count in (({}, 1), ({"unsupported": ()}, 0)):
        runner = await new_runner(type("Server", (ToyAnswers,), members))
        assert await pieces_of(runner, sampling=Sampling(logprobs=1))
        pieces = [record.getMessage() for record in caplog.records]
        assert sum("does not heed logprobs" in line for line in pieces) == count
        caplog.clear()


async def test_seeds_are_the_same_alone_and_among_eight(new_runner):
    runner = await new_runner(ToyMany)

    async def ids(name, seed):
        sampling = Sampling(temperature=300.0, seed=seed)
        pieces = runner.answer(request(runner, "abc", name, 12, sampling=sampling))
        return [token async for piece in pieces for token in piece.ids]

    alone = [await ids(f"alone {seed}", seed) for seed in range(8)]
    assert len({tuple(answer) for answer in alone}) == 8
    together = await asyncio.gather(*(ids(f"together {seed}", seed) for seed in range(8)))
    assert together == alone
