"""A prompt that begins as an earlier one: what is taken over, from whom, and what never is."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from reusing import HALVES, PAST, conversation, held_bytes, rows
from running import answer_of, request, until, value
from toy import ToyMany

from exo_kit.kit.contract import Sampling, Usage
from exo_kit.kit.engine.prefix_cache import BLOCK
from exo_kit.kit.engine.sampler import Sampler


async def test_the_next_turn_of_a_chat_computes_what_is_new_alone(new_runner, off):
    runner, hits = await new_runner(ToyMany), value("reuse_hits_total")
    reused = value("reused_tokens_total")
    turns = PAST, 2 * PAST, 3 * PAST
    assert await conversation(runner, *turns) == await conversation(off, *turns)
    first, second, third = (len(turn) for turn in turns)
    alone = [1, 1, 1]
    assert rows(runner) == [first, *alone, second - BLOCK, *alone, third - 2 * BLOCK, *alone]
    assert value("reuse_hits_total") == hits + 2
    assert value("reused_tokens_total") == reused + 3 * BLOCK


async def test_an_answer_serves_nobody_until_a_prompt_has_it(new_runner, off):
    runner = await new_runner(ToyMany)
    _, answer, _ = await answer_of(runner, PAST, "turn one", 2 * BLOCK)
    past = PAST + answer  # whose rows the device has, but for the last
    for name, length in (("turn two", BLOCK), ("turn three", 3 * BLOCK)):
        batches, reused = len(runner.executor.instance.batches), value("reused_tokens_total")
        assert await answer_of(runner, past, name, 4) == await answer_of(off, past, name, 4)
        assert rows(runner)[batches] == len(runner.tokenizer.encode(past)) - length
        assert value("reused_tokens_total") == reused + length
        past += "more"


async def test_a_guess_at_anothers_answer_costs_and_counts_what_a_wrong_one_does(new_runner):
    runner = await new_runner(ToyMany)
    ids, *_ = await answer_of(runner, PAST, "stranger", 2 * BLOCK)
    guesses = [ids, ids[:20] + 44 * [1], ids[::-1], 64 * [2]]
    seen = set()
    for number, guess in enumerate(guesses):
        batches, reused = len(runner.executor.instance.batches), value("reused_tokens_total")
        prompt = request(runner, PAST, f"guess {number}", 1)
        async for _ in runner.answer(replace(prompt, ids=(*prompt.ids, *guess))):
            pass
        seen.add((rows(runner)[batches], value("reused_tokens_total") - reused))
    assert seen == {(len(PAST) + 64 - BLOCK, BLOCK)}


async def test_who_begins_with_a_text_of_their_own_shares_nothing_with_others(new_runner):
    """A salt, as long as no host hands on whose request it is: matches begin with the first row."""
    runner = await new_runner(ToyMany)
    reused = value("reused_tokens_total")
    for name, salt in (("mine", "q7"), ("another's", ""), ("a guesser's", "q8")):
        await answer_of(runner, salt + 3 * PAST, name, 2)
    assert value("reused_tokens_total") == reused
    await answer_of(runner, "q7" + 3 * PAST, "mine again", 2)
    assert value("reused_tokens_total") > reused


async def test_the_last_piece_has_what_the_answer_took(new_runner):
    runner = await new_runner(ToyMany)
    took = []
    for name in ("one", "two"):
        pieces = [piece async for piece in runner.answer(request(runner, PAST, name, 5))]
        took += [piece.usage for piece in pieces if piece.usage]
    assert took == [Usage(len(PAST), 5), Usage(len(PAST), 5, BLOCK)]


@pytest.mark.parametrize("less", [0, 1])
async def test_less_than_a_block_is_computed_anew(new_runner, off, less):
    runner = await new_runner(ToyMany)
    same = PAST[: BLOCK - less]
    turns = same + "abc", same + "xyz"
    assert await conversation(runner, *turns) == await conversation(off, *turns)
    assert rows(runner)[4] == (len(turns[1]) if less else 3)


@pytest.mark.parametrize("length", [BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
async def test_the_same_prompt_again_computes_its_last_id_at_least(new_runner, off, length):
    runner, prompt = await new_runner(ToyMany), (2 * PAST)[:length]
    assert await conversation(runner, prompt, prompt) == await conversation(off, prompt, prompt)
    assert rows(runner)[4] == length - (length - 1) // BLOCK * BLOCK


async def test_one_past_serves_many_users_at_once(new_runner, off):
    runner = await new_runner(ToyMany)
    await answer_of(runner, PAST, "first", 2)

    async def ask(runner):
        prompt = (answer_of(runner, PAST + letter, letter, 5) for letter in "abcd")
        return await asyncio.gather(*prompt)

    assert await ask(runner) == await ask(off)
    assert max(rows(runner)[2:]) == len(PAST) + 1 - BLOCK


async def test_an_answer_in_flight_serves_others_too(new_runner, off):
    runner = await new_runner(ToyMany)
    answer = asyncio.ensure_future(answer_of(runner, PAST, "first", 60))
    await until(lambda: len(runner.executor.instance.batches) > 2)
    assert await answer_of(runner, PAST + "x", "other", 5) == await answer_of(
        off, PAST + "x", "other", 5
    )
    assert await answer == await answer_of(off, PAST, "first", 60)
    assert set(rows(runner)[1:]) == {1, len(PAST) + 1 - BLOCK}


async def test_a_cancelled_answer_serves_and_a_failed_one_does_not(new_runner):
    runner = await new_runner(ToyMany)
    for name in ("cancelled", "failed"):
        await runner.step(name, np.array([[*range(40)]]))
    runner.requests.cancel("cancelled")
    runner.requests.fail("failed", "the device went away", "device")
    await until(lambda: runner.executor.instance.forgotten == ["failed"])
    await runner.step("next", np.array([[*range(41)]]))
    assert rows(runner) == [40, 40 - BLOCK, 41 - BLOCK]


async def through(first, last, name, ids):
    """The ids that two nodes answer with."""
    result = []
    x = np.array([ids])
    for _ in range(4):
        hidden = await first.step(name, x)
        assert hidden.shape[1] == x.shape[1]
        hidden.flags.writeable = False  # as it comes from a peer
        result.append(last.pick(await last.step(name, hidden), Sampler(Sampling())))
        x = np.array([result[-1:]])
    for runner in (first, last):
        runner.requests.finish(name)
    return result


async def test_every_node_of_a_cluster_finds_out_by_itself(new_runner):
    ids = [*range(5, 50)]
    turns = {"one": ids, "two": [*ids, 7, 8], "three": ids}
    on, off = [
        [await new_runner(ToyMany, layers=layers, reuses=reuses) for layers in HALVES]
        for reuses in (True, False)
    ]
    for name, prompt in turns.items():
        assert await through(*on, name, prompt) == await through(*off, name, prompt)
    for runner in on:
        assert rows(runner) == [45, 1, 1, 1, 47 - BLOCK, 1, 1, 1, 45 - BLOCK, 1, 1, 1]


async def test_a_node_that_kept_nothing_gets_the_whole_prompt(new_runner):
    first, last = [await new_runner(ToyMany, layers=layers) for layers in HALVES]
    ids = np.array([[*range(5, 50)]])
    await last.step("one", await first.step("one", ids))
    first.requests.finish("one")
    last.requests.evict("one", "there was no room")
    again = await last.step("two", await first.step("two", ids))
    assert (rows(first), rows(last)) == ([45, 45 - BLOCK], [45, 45])
    last.requests.evict("two", "there was no room")
    np.testing.assert_array_equal(again, await last.step("three", await first.step("three", ids)))


async def test_a_longer_turn_takes_the_place_of_a_shorter_one(new_runner):
    runner = await new_runner(ToyMany)
    _, text, _ = await answer_of(runner, PAST, "one", 3)
    await answer_of(runner, PAST + text + "more", "two", 3)
    await until(lambda: list(runner.executor.instance.states) == ["two"])


async def test_an_id_that_comes_again_begins_anew(new_runner, off):
    runner = await new_runner(ToyMany)
    for prompt in (PAST, PAST[::-1], PAST[::-1]):
        runner.requests._ended.clear()  # it is remembered for many requests only
        off.requests._ended.clear()
        result, expected = [await answer_of(r, prompt, "same", 5) for r in (runner, off)]
        assert result == expected


async def test_other_layers_begin_with_nothing(new_runner, source):
    runner = await new_runner(ToyMany)
    await conversation(runner, PAST)
    await runner.load(HALVES[0], source)
    await runner.step("r", np.array([[*range(40)]]))
    assert held_bytes("kept") == 0


class Cannot(ToyMany):
    """A device whose model's states can't be taken over."""

    calls = 0

    def reuse(self, request_id, other, length):
        type(self).calls += 1
        raise NotImplementedError("this model's keys are of their request")


async def test_a_model_without_reuse_is_asked_once_and_computed_whole(new_runner, off, caplog):
    runner = await new_runner(Cannot)
    turns = PAST, 2 * PAST, 3 * PAST
    assert await conversation(runner, *turns) == await conversation(off, *turns)
    assert Cannot.calls == 1
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    await until(lambda: runner.executor.instance.states == {})  # nothing is held for later prompts
