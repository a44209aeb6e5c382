"""What a host gets of a backend's pieces: limits, ends, usage, and text where it reads some."""

import pytest
from running import answer_of, request, value
from toy import END, STOP, ToyAnswers, ToyMany

from exo_kit.kit.contract import Usage


class Scripted(ToyAnswers):
    """Says the pieces of its class."""

    said = ()

    async def answer(self, request):
        for members in self.said:
            yield self.piece(**members)


@pytest.fixture
def saying(new_runner):
    """Function `saying(*said)`: a runner whose device says these pieces."""

    async def make(*said):
        return await new_runner(type("Says", (Scripted,), {"said": said}))

    return make


async def pieces_of(runner, most=64, text=True, **members):
    answer = runner.answer(request(runner, "abc", most=most, **members), text)
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
