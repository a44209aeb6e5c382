"""What is multiplied to choose the threads, and with which numbers of them."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from exo_kit.kit.llama import threads
from exo_kit.kit.llama.threads import DECODE, PREFILL, Threads, candidates

LARGE = SimpleNamespace(hidden_size=576, intermediate_size=1536)


def test_what_is_measured_is_products_of_a_token_and_of_a_prompt():
    matrices = [np.ones((5, 3), np.float32), np.ones((2, 5), np.float32)]
    made = threads.passes(iter(matrices))
    assert [call().shape for call in made[DECODE]] == [(1, 5), (1, 2)]
    assert [call().shape for call in made[PREFILL]] == [(PREFILL, 5), (PREFILL, 2)]


def test_a_pass_ends_long_before_a_large_model_does():
    matrix = np.broadcast_to(np.float32(0), (4096, 4096))
    left = iter([matrix] * 5)
    made = threads.passes(left)
    assert [len(calls) for calls in made.values()] == [2, 1]
    assert len([*left]) == 3  # a generator may read the others from the disk


def test_nothing_keeps_the_weights():
    matrix = np.ones((700, 700), np.float32)
    model = SimpleNamespace(
        config=LARGE, layers=[{"a.weight": matrix, "norm": np.ones(3, np.float32)}]
    )
    alive = weakref.ref(matrix)
    chosen = Threads(2, lambda number: None)
    chosen.ready(model)
    with chosen.step(model, 1):
        pass
    del model, matrix
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("limit", "tried"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (6, [1, 2, 4, 5, 6]), (16, [1, 2, 4, 8, 15, 16])],
)
def test_powers_of_two_are_tried_and_all_cores_and_all_but_one(limit, tried):
    assert candidates(limit) == tried
