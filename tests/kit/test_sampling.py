import numpy as np
import pytest

from exo_kit.kit.contract import Sampling
from exo_kit.kit.engine.sampler import Sampler


def sample(logits, temperature, top_p=1.0, **more):
    return Sampler(Sampling(temperature, top_p, **more)).sample(logits)


def test_temperature_zero_takes_the_largest_of_the_last_position():
    logits = np.array([[[9.0, 0, 0], [0, 0, 5.0]]], dtype=np.float32)
    assert sample(logits, 0.0, 1.0) == 2


def test_a_small_nucleus_is_argmax():
    logits = np.array([[[1.0, 3.0, 2.0]]], dtype=np.float32)
    assert {sample(logits, 1.0, 0.01) for _ in range(50)} == {1}


def test_the_nucleus_drops_the_tail_only():
    logits = np.log(np.array([[[0.5, 0.4, 0.1]]]))
    assert {sample(logits, 1.0, 0.8) for _ in range(300)} == {0, 1}


def test_frequencies_follow_the_logits():
    logits = np.log(np.array([[[0.75, 0.25]]]))
    share = np.mean([sample(logits, 1.0, 1.0) for _ in range(4000)])
    assert abs(share - 0.25) < 0.03


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error_and_minus_infinity_is_not(temperature):
    with pytest.raises(ValueError, match="NaN"):
        sample(np.array([[[1.0, np.nan, 2.0]]]), temperature)
    assert sample(np.array([[[-np.inf, 5.0, -np.inf]]]), temperature) == 1


THREE = np.log(np.array([[[0.5, 0.3, 0.2]]]))


@pytest.mark.parametrize(
    ("how", "drawn"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 9}, {0, 1, 2}),
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 0.3}, {0, 1, 2}),
        ({"top_k": 2, "min_p": 0.9}, {0}),
    ],
)
def test_what_is_too_unlikely_is_never_drawn(how, drawn):
    sampler = Sampler(Sampling(1.0, **how))
    assert {sampler.sample(THREE) for _ in range(400)} == drawn


def test_a_seed_gives_the_same_again():
    drawn = []
    for seed in (1, 1, 2):
        sampler = Sampler(Sampling(1.0, seed=seed))
        drawn.append([sampler.sample(THREE) for _ in range(50)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("how", "ids"),
    [
        ({}, [0, 0, 0, 0, 0]),
        ({"presence_penalty": 0.6}, [0, 1, 0, 0, 0]),
        ({"frequency_penalty": 0.6}, [0, 1, 0, 2, 1]),
        ({"repetition_penalty": 1.8}, [0, 1, 0, 0, 0]),
    ],
)
def test_penalties_make_others_likelier(how, ids):
    sampler = Sampler(Sampling(**how))
    assert [sampler.sample(THREE) for _ in range(5)] == ids


def test_the_repetition_penalty_counts_the_prompt_too():
    logits = np.array([[[2.0, 1.9, -1.0]]])
    assert Sampler(Sampling(repetition_penalty=2.0), [0, 7]).sample(logits) == 1
    assert Sampler(Sampling(presence_penalty=2.0), [0, 7]).sample(logits) == 0
