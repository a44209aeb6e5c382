"""Slices and batches of every precision, and what they take."""

import numpy as np
import pytest
from checkpoints import LAYERS, tokens
from onnx_models import CONFIGS, assert_near, backends, slices, through

from exo_kit.backend import Backend
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.onnx.checkpoint import BLOCK
from exo_kit.kit.repository.facts import RepositoryError

TOLERANCE = 1e-5  # of the largest number, in float32


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    """A checkpoint of each architecture and option."""
    made = tmp_path_factory.mktemp(request.param)
    write_checkpoint(made, CONFIGS[request.param])
    return made


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("llama")
    write_checkpoint(made, CONFIGS["llama"])
    return made


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_two_slices_and_three_are_one_in_every_precision(folder, precision, set_):
    set_("PRECISION", precision)
    one, two, three = backends(folder), backends(folder, 2), backends(folder, 1, 3)
    ids = tokens(24)
    for step in (ids[:, :20], *np.split(ids[:, 20:], 4, axis=1)):
        whole = through(one, step)
        np.testing.assert_array_equal(through(two, step), whole)
        np.testing.assert_array_equal(through(three, step), whole)


def test_requests_in_one_batch_of_every_architecture_get_what_each_gets_alone(folder):
    """To the tolerance: some CPUs' products of several rows are others in their last bits."""
    (alone,), (together,) = backends(folder), backends(folder)
    for seed, name in enumerate("abcd"):
        for backend in (alone, together):
            backend.step(name, tokens(20 + 7 * seed, seed))
    for n in range(60):  # beyond the caches' first room
        names = [name for m, name in enumerate("abcd") if n % 7 != m]  # one is late now and then
        steps = [(name, tokens(1, 10 * n + ord(name))) for name in names]
        if n % 20 == 3:
            steps.insert(n % 3, (f"new {n}", tokens(30, n)))
        for (name, x), output in zip(steps, together.step_batch(steps), strict=True):
            assert_near(output, alone.step(name, x), TOLERANCE)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.05), ("int4", 0.6)])
def test_a_batch_in_slices_is_what_each_gets_alone(llama_folder, precision, tolerance, set_):
    set_("PRECISION", precision)
    (whole,), (first, last) = backends(llama_folder), backends(llama_folder, 2)
    steps = [("a", tokens(5)), ("b", tokens(1)), ("c", tokens(1, 1)), ("d", tokens(1, 2))]
    names = [name for name, _ in steps]
    for _ in range(3):
        hidden = first.step_batch(steps)
        assert [y.shape[1] for y in hidden] == [x.shape[1] for _, x in steps]
        output = last.step_batch(list(zip(names, hidden, strict=True)))
        for (name, x), y in zip(steps, output, strict=True):
            assert_near(y, whole.step(name, x), tolerance)


def test_random_companies_come_and_go_and_nobody_notices(llama_folder):
    (alone,), (together,) = backends(llama_folder), backends(llama_folder)
    random = np.random.default_rng(0)
    alive, born = list[str](), 0
    for n in range(150):
        while len(alive) < 2 or random.random() < 0.2:
            alive.append(f"request {born}")
            born += 1
            prompt = tokens(int(random.integers(1, 90)), born)
            for backend in (alone, together):
                backend.step(alive[-1], prompt)
        names = random.permutation(alive)[: random.integers(2, 7)].tolist()
        steps = [(name, tokens(1, n + 7 * m)) for m, name in enumerate(names)]
        for (name, x), output in zip(steps, together.step_batch(steps), strict=True):
            assert_near(output, alone.step(name, x), TOLERANCE)
        if random.random() < 0.25:
            gone = alive.pop(int(random.integers(len(alive))))
            for backend in (alone, together):
                backend.forget(gone)
            assert together.size(gone) == 0


def test_a_company_that_has_gone_gives_its_memory_back(llama_folder, set_):
    set_("PROVIDER", "CPU")  # on others everybody is alone
    (backend,), (alone,) = backends(llama_folder), backends(llama_folder)
    names = "abcdefgh"
    backend.step_batch([(name, tokens(1)) for name in names])
    alone.step("h", tokens(1))
    assert len(backend._requests["h"].block.members) == 8
    for name in names[:-1]:
        backend.forget(name)
    assert len(backend._requests["h"].block.members) == 1
    assert_near(backend.step("h", tokens(1, 1)), alone.step("h", tokens(1, 1)), TOLERANCE)


def test_who_is_at_the_end_of_the_context_fails_alone(llama_folder):
    (backend,), (other,) = backends(llama_folder), backends(llama_folder)
    for each in (backend, other):
        for name, length in (("a", 10), ("full", 399), ("b", 20)):
            each.step(name, tokens(length))
    names = ("a", "full", "b")
    for n in range(3):
        output = backend.step_batch([(name, tokens(1, n)) for name in names])
        for name, y in zip(names, output, strict=True):
            if name == "full" and n:
                assert isinstance(y, ValueError)
                assert "the answer is too long" in str(y)
            else:
                assert_near(y, other.step(name, tokens(1, n)), TOLERANCE)
    for name, y in zip("ab", backend.step_batch([(name, tokens(1)) for name in "ab"]), strict=True):
        assert_near(y, other.step(name, tokens(1)), TOLERANCE)


@pytest.mark.parametrize("size", [8, 24, 40])
def test_heads_that_attention_cant_turn_are_refused(tmp_path, size):
    write_checkpoint(tmp_path, CONFIGS["llama"] | {"head_dim": size})
    with pytest.raises(RepositoryError, match=f"head_dim is {size}, .* multiples of 16"):
        Backend().load(slices()[0], tmp_path, None)


def test_what_a_request_and_the_layers_take_is_told(llama_folder):
    whole, (left, right) = backends(llama_folder)[0], backends(llama_folder, 2)
    assert whole.size("request") == 0
    whole.step("request", tokens(3))
    one = LAYERS * 2 * 2 * 16 * 4  # layers, keys and values, heads, size, bytes
    assert whole.size("request") == 64 * one
    whole.step("request", tokens(62))
    assert whole.size("request") == 128 * one
    assert (whole.block, whole.context) == (BLOCK, 400)
    angles = 2 * 400 * 8 * 4
    assert left.size(None) + right.size(None) == pytest.approx(whole.size(None) + angles, rel=1e-3)
