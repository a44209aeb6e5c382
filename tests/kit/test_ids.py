"""Ids that the embedding has no row for: the request's fault, before the device sees them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from running import answer_of, request
from toy import VOCABULARY, ToyBackend

from exo_kit.kit.contract import Layers, Piece, RequestError


class Foreign(ToyBackend):
    """An author's own device, which counts what it was given, and looks at no id itself."""

    steps = 0

    def step(self, request_id, x):
        self.steps += 1
        return super().step(request_id, x)


def with_rows(source, rows):
    (source.folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return source


async def pieces_of(runner, *ids) -> list[Piece]:
    changed = replace(request(runner, "a"), ids=ids)
    return [piece async for piece in runner.answer(changed)]


@pytest.mark.parametrize("wrong", [len(VOCABULARY), 2**31, -1])
async def test_a_prompt_with_an_id_beyond_the_tokenizer_is_refused(new_runner, wrong):
    runner = await new_runner(Foreign)
    with pytest.raises(RequestError, match=f"no token {wrong}: the model has {len(VOCABULARY)}"):
        await pieces_of(runner, 1, wrong, 2)
    assert runner.executor.instance.steps == 0
    assert (await answer_of(runner, "xyz", "another"))[2] == "stop"


async def test_the_embedding_of_config_json_counts_before_the_tokenizer(new_runner, source):
    with_rows(source, 5)
    runner = await new_runner(Foreign)
    with pytest.raises(RequestError, match="no token 5: the model has 5"):
        await pieces_of(runner, 1, 5)
    assert runner.executor.instance.steps == 0


async def test_an_id_that_a_device_chose_beyond_its_embedding_ends_that_request(new_runner, source):
    with_rows(source, 5)
    runner = await new_runner(Foreign)
    with pytest.raises(RequestError, match="no token 5: the model has 5"):
        await pieces_of(runner, 4)  # the toy's next id is one more
    assert runner.executor.instance.steps == 1


async def test_a_device_may_choose_a_row_that_the_tokenizer_has_no_token_for(new_runner):
    runner = await new_runner(Foreign)
    await runner.step("request", np.array([[1]]))
    await runner.step("request", np.array([[len(VOCABULARY)]]))
    assert runner.executor.instance.steps == 2


async def test_layers_that_take_hidden_states_have_no_ids(new_runner):
    runner = await new_runner(Foreign, layers=Layers("toy", 2, 3, 4))
    hidden = np.full((1, 2, 1), 1e6, np.float32)
    assert (await runner.step("request", hidden)).shape == (1, 1, len(VOCABULARY))
