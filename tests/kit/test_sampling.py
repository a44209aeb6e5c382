import numpy as np
import pytest

from exo_kit.kit.engine.sampler import sample

RNG = np.random.default_rng(0)


def test_temperature_zero_takes_the_largest_of_the_last_position():
    logits = np.array([[[9.0, 0, 0], [0, 0, 5.0]]], dtype=np.float32)
    assert sample(logits, 0.0, 1.0, RNG) == 2


def test_a_small_nucleus_is_argmax():
    logits = np.array([[[1.0, 3.0, 2.0]]], dtype=np.float32)
    assert {sample(logits, 1.0, 0.01, RNG) for _ in range(50)} == {1}


def test_the_nucleus_drops_the_tail_only():
    logits = np.log(np.array([[[0.5, 0.4, 0.1]]]))
    assert {sample(logits, 1.0, 0.8, RNG) for _ in range(300)} == {0, 1}


def test_frequencies_follow_the_logits():
    logits = np.log(np.array([[[0.75, 0.25]]]))
    share = np.mean([sample(logits, 1.0, 1.0, RNG) for _ in range(4000)])
    assert abs(share - 0.25) < 0.03


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error_and_minus_infinity_is_not(temperature):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="NaN"):
        sample(np.array([[[1.0, np.nan, 2.0]]]), temperature, 1.0, rng)
    assert sample(np.array([[[-np.inf, 5.0, -np.inf]]]), temperature, 1.0, rng) == 1
