"""Logprobs beside a server's ids, in each server's shape."""

import logging

import pytest
from hosting import within

from exo_kit.kit.contract import Logprob
from exo_kit.kit.openai.logprobs import of_completion, of_llama, of_sglang

EXPECTED = (Logprob(7, -0.5, ((7, -0.5), (9, -1.5))), Logprob(8, -2.0, ((3, -0.1), (8, -2.0))))
FIELDS = {
    "vllm": {"logprobs": 2, "return_tokens_as_token_ids": True},
    "old-vllm": {"logprobs": 2, "return_tokens_as_token_ids": True},
    "sglang": {"return_logprob": True, "top_logprobs_num": 2},
    "llama.cpp": {"n_probs": 2},
}


def test_vllms_are_named_by_ids():
    tops = [
        {"token_id:7": -0.5, "token_id:9": -1.5},
        {"token_id:8": -2.0, "token_id:3": -0.1, "token_id:4": -9.0},  # the chosen one besides
    ]
    names = ["token_id:7", "token_id:8"]
    entries = {"tokens": names, "token_logprobs": [-0.5, -2], "top_logprobs": tops}
    assert of_completion({"logprobs": entries}, 2) == EXPECTED
    assert [each.top for each in of_completion({"logprobs": entries}, 0)] == [(), ()]
    assert len(of_completion({"logprobs": entries | {"top_logprobs": None}}, 2)) == 2


def test_llama_cpps_have_ids():
    tops = [[(7, -0.5), (9, -1.5)], [(3, -0.1), (8, -2.0)]]
    entries = [
        {"id": i, "logprob": v, "top_logprobs": [{"id": t, "logprob": x} for t, x in top]}
        for (i, v), top in zip([(7, -0.5), (8, -2.0)], tops, strict=True)
    ]
    assert of_llama({"completion_probabilities": entries}, 2) == EXPECTED


def test_sglangs_are_of_all_tokens_so_far():
    meta = {
        "output_token_logprobs": [[-3.0, 5, None], [-0.5, 7, None], [-2.0, 8, "x"]],
        "output_top_logprobs": [None, [[-0.5, 7, None], [-1.5, 9, None]], [[-0.1, 3], [-2.0, 8]]],
    }
    assert of_sglang(meta, 2, 2) == EXPECTED
    assert of_sglang(meta, 0, 2) == ()


@pytest.mark.parametrize(
    "entries", [None, 5, {}, {"tokens": ["a"], "token_logprobs": [-1]}, {"tokens": 5},
              {"tokens": ["token_id:1"], "token_logprobs": [None], "top_logprobs": 7}],
)  # fmt: skip
def test_another_shape_is_none(entries):
    assert of_completion({"logprobs": entries}, 2) == ()
    assert of_llama({"completion_probabilities": entries}, 2) == ()
    assert of_sglang({"output_token_logprobs": entries, "output_top_logprobs": entries}, 1, 2) == ()


async def test_they_are_asked_for_where_the_server_has_them(host, server, kind, caplog):
    await host.load()
    with caplog.at_level(logging.WARNING):
        for name in "ab":
            await within(30, host.answer(name, 100, logprobs=2))
    body, fields = server.answered[-1], FIELDS.get(kind, {})
    assert body.items() >= fields.items()
    assert caplog.text.count("no logprobs come with") == (not fields)
    await within(30, host.answer("c", 100))
    id_fields = ("logprobs", "return_tokens_as_token_ids") if kind == "old-vllm" else ()
    assert not server.answered[-1].keys() & (fields.keys() - set(id_fields))
