"""The sampler chooses as vLLM does, and no request's luck is another's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sampling_reference import CASES, PROMPT

from exo_kit.kit.contract import Sampling
from exo_kit.kit.engine.sampler import Sampler, logprob

DRAWS = 500


class Sweep:
    """A stream that gives each of so many parts of [0, 1) once."""

    def __init__(self, draws=DRAWS):
        self._numbers = iter(((2 * n + 1) << 63) // draws for n in range(draws))

    def random_raw(self):
        return next(self._numbers)


def shares(logits, sampling, prompt=(), draws=DRAWS):
    """How often each id is drawn, over all parts of [0, 1): its probability to 1 / draws."""
    sampler = Sampler(sampling, prompt)
    sampler._bits = Sweep(draws)
    if sampler._penalties is not None:
        sampler._penalties.add = lambda token: None
    drawn = [sampler.sample(logits) for _ in range(draws)]
    return np.bincount(drawn, minlength=logits.shape[-1]) / draws


def vllm(logits, sampling, prompt, answer):
    """Probabilities (V,) by vLLM's formulas (vllm/v1/sample), sorted as it sorts."""
    x = logits.astype(np.float64)
    counts = np.bincount(list(answer), minlength=len(x))
    come = (counts > 0) | (np.bincount(list(prompt), minlength=len(x)) > 0)
    by = sampling.repetition_penalty
    x[come] = np.where(x[come] > 0, x[come] / by, x[come] * by)
    x -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
    x /= sampling.temperature
    p = np.exp(x - x.max())
    x[p < sampling.min_p * p.max()] = -np.inf
    order = np.argsort(x)
    if 0 < sampling.top_k < len(x):
        x[x < x[order[-sampling.top_k]]] = -np.inf
    p = np.exp(x - x.max())
    p /= p.sum()
    dropped = np.cumsum(p[order]) <= 1 - sampling.top_p
    dropped[-1] = False
    p[order[dropped]] = 0
    return p / p.sum()


TABLE = [
    pytest.param(logits, setting, expected, id=f"{n}-{'-'.join(map(str, setting.values()))}")
    for n, (logits, rows) in enumerate(CASES)
    for setting, expected in rows
]


@pytest.mark.parametrize(("logits", "setting", "expected"), TABLE)
def test_what_is_left_is_what_transformers_leaves(logits, setting, expected):
    values = np.array(logits.split(), dtype=np.float32)
    left = np.array(expected.split(), dtype=np.float64)
    share = shares(values, Sampling(**setting), PROMPT)
    assert np.abs(share - left).max() < 1.5 / DRAWS
    assert set(np.flatnonzero(share)) <= set(np.flatnonzero(left))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [7, 64, 1000])
def test_random_logits_and_settings_follow_vllms_formulas(seed, size):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(size) * rng.choice([0.5, 3, 12])).astype(np.float32)
    sampling = Sampling(
        temperature=float(rng.choice([0.3, 1.0, 1.5])),
        top_p=float(rng.choice([0.3, 0.95, 1.0])),
        top_k=int(rng.choice([0, 3, 40])),
        min_p=float(rng.choice([0, 0.02, 0.3])),
        repetition_penalty=float(rng.choice([1.0, 0.8, 1.4])),
        presence_penalty=float(rng.choice([0, 0.7])),
        frequency_penalty=float(rng.choice([0, -0.3, 0.5])),
    )
    prompt, answer = rng.integers(size, size=5).tolist(), rng.integers(size, size=80).tolist()
    sampler = Sampler(sampling, prompt)
    if sampler._penalties is not None:
        for token in answer:
            sampler._penalties.add(token)
        sampler._penalties.add = lambda token: None
    sampler._bits = Sweep()
    share = np.bincount([sampler.sample(logits) for _ in range(DRAWS)], minlength=size) / DRAWS
    assert np.abs(share - vllm(logits, sampling, prompt, answer)).max() < 1.5 / DRAWS


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 10},
        {"temperature": 1.3, "min_p": 0.1},
    ],
)
def test_frequencies_follow_the_probabilities(sampling):
    logits = np.random.default_rng(5).standard_normal(40).astype(np.float32) * 2
    drawn = [Sampler(Sampling(seed=n, **sampling)).sample(logits) for n in range(1000)]
    check_frequencies(drawn, vllm(logits, Sampling(**sampling), (), ()), cell=5)


def check_frequencies(drawn, probabilities, cell):
    """Chi-square over cells that expect so many; its 99.9 % point by Wilson and Hilferty."""
    order = np.argsort(probabilities)
    ends = np.cumsum(probabilities[order]) * len(drawn) // cell
    cells = np.unique(ends, return_inverse=True)[1]
    expected = np.bincount(cells, weights=probabilities[order]) * len(drawn)
    seen = np.bincount(cells, weights=np.bincount(drawn, minlength=len(order))[order])
    assert probabilities[drawn].all(), "one was drawn that can't come"
    chi, freedom = ((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum(), len(expected) - 1
    assert chi < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


@pytest.mark.parametrize("sharp", [1.0, 5.0])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"top_p": 0.95},
        {"top_p": 0.5},
        {"top_p": 0.02},
        {"min_p": 0.01},
        {"min_p": 0.01, "top_p": 0.8},
        {"top_k": 700, "top_p": 0.9},
        {"top_k": 19_000, "top_p": 0.9},
    ],
)
def test_a_large_vocabulary_is_drawn_from_by_the_same_formulas(sampling, sharp):
    logits = np.random.default_rng(6).standard_normal(20_011).astype(np.float32) * np.float32(sharp)
    sampling = Sampling(1.0, seed=3, **sampling)
    sampler = Sampler(sampling)
    drawn = [sampler.sample(logits) for _ in range(600)]
    check_frequencies(drawn, vllm(logits, sampling, (), ()), cell=20)


def test_the_nucleus_of_equal_logits_is_all_of_them():
    sampler = Sampler(Sampling(1.0, seed=1, top_p=0.01))
    drawn = {sampler.sample(np.full(20_000, -3e4, dtype=np.float32)) for _ in range(50)}
    assert len(drawn) > 45


def answer(sampling, steps, name=0):
    """Ids drawn from logits that follow from the ids before them."""
    sampler, ids = Sampler(sampling, [1, 2]), [name]
    for _ in range(steps):
        rng = np.random.default_rng(ids)
        ids.append(sampler.sample(rng.standard_normal((1, 1, 300)).astype(np.float32)))
    return ids


def test_a_seed_gives_the_same_answer_alone_and_among_eight():
    how = [Sampling(1.0, seed=n, top_p=0.9, frequency_penalty=0.1) for n in range(8)]
    alone = [answer(sampling, 20) for sampling in how]
    assert len({tuple(ids) for ids in alone}) == 8
    samplers, ids = [Sampler(sampling, [1, 2]) for sampling in how], [[0] for _ in how]
    for step in range(20):
        for place in range(8) if step % 2 else reversed(range(8)):
            rng = np.random.default_rng(ids[place])
            logits = rng.standard_normal((1, 1, 300)).astype(np.float32)
            ids[place].append(samplers[place].sample(logits))
    assert ids == alone
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(answer, how, [20] * 8)) == alone


def test_without_a_seed_no_two_answers_are_alike():
    assert answer(Sampling(1.0), 20) != answer(Sampling(1.0), 20)


@pytest.mark.parametrize("seed", [0, -1, 1 << 80])
def test_every_whole_number_is_a_seed(seed):
    assert answer(Sampling(1.0, seed=seed), 5) == answer(Sampling(1.0, seed=seed), 5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_temperature_zero_takes_the_largest_of_the_last_position(dtype):
    logits = np.array([[[9.0, 0, 0, 1], [0, 0, 5.0, 5.0]]], dtype=dtype)
    assert Sampler(Sampling(seed=1)).sample(logits) == 2
    assert Sampler(Sampling(1e-6)).sample(logits) == 2
    assert Sampler(Sampling(0.01, seed=1)).sample(logits[:, :1]) == 0


def test_penalties_change_what_is_largest():
    logits = np.array([3.0, 2.9, -1.0])
    sampler = Sampler(Sampling(frequency_penalty=0.06))
    assert [sampler.sample(logits) for _ in range(4)] == [0, 0, 1, 0]
    assert Sampler(Sampling(repetition_penalty=1.1), [0, 77]).sample(logits) == 1
    sampler = Sampler(Sampling(presence_penalty=0.2), [0])
    assert [sampler.sample(logits) for _ in range(3)] == [0, 1, 0]
    assert logits.tolist() == [3.0, 2.9, -1.0]


def test_many_different_ids_are_penalized():
    sampler = Sampler(Sampling(presence_penalty=9.0), [])
    logits = np.arange(200.0) / 200
    assert [sampler.sample(logits) for _ in range(200)] == list(range(199, -1, -1))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error_and_infinity_is_not(temperature):
    def sample(*logits):
        return Sampler(Sampling(temperature)).sample(np.array([[logits]]))

    with pytest.raises(ValueError, match="NaN"):
        sample(1.0, np.nan, 2.0)
    assert sample(-np.inf, 5.0, -np.inf) == 1
    assert sample(0.0, np.inf, 5.0) == 1


@pytest.mark.parametrize("members", [{}, {"top_p": 0.5}, {"top_k": 2}, {"min_p": 0.01}])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 5000])
def test_a_huge_or_tiny_logit_is_no_matter(members, size):
    logits = np.linspace(-9e5, -8e5, size, dtype=np.float32)
    assert Sampler(Sampling(0.5, **members)).sample(logits) == size - 1
    assert Sampler(Sampling(0.5, **members)).sample(-logits) == 0


def test_logprobs_are_those_of_the_raw_logits():
    logits = np.random.default_rng(3).standard_normal((1, 2, 50)).astype(np.float32) * 3
    last = logits[0, -1].astype(np.float64)
    expected = last - np.log(np.exp(last).sum())
    result = logprob(logits, 7, 5)
    assert (result.id, result.logprob) == (7, pytest.approx(expected[7], abs=1e-5))
    best = np.argsort(-last)[:5].tolist()
    assert [token for token, _ in result.top] == best
    assert [value for _, value in result.top] == pytest.approx(expected[best].tolist(), abs=1e-5)
    assert logprob(logits, 7, 0).top == ()
    assert len(logprob(logits, 7, 500).top) == 50
