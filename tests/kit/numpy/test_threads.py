"""The choice of threads, on a machine that is played: no test depends on this one's cores."""

import gc
import subprocess
import sys
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import CONFIGS, LAYERS, slices, tokens

from exo_kit.backend import Backend
from exo_kit.kit.llama import threads
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.threads import DECODE, PREFILL, Threads, candidates
from exo_kit.kit.settings import PREFIX, SettingError

LARGE = SimpleNamespace(config=SimpleNamespace(hidden_size=576, intermediate_size=1536))
TINY = SimpleNamespace(config=SimpleNamespace(hidden_size=64, intermediate_size=192))


class Machine:
    """Cores, other programs on some of them, and a clock that only its work moves."""

    def __init__(self, cores=4, decode_scales_to=4):
        self.cores, self.decode_scales_to = cores, decode_scales_to
        self.others, self.now, self.number, self.measured = 0, 0.0, None, 0
        self.numbers, self.products = [], []

    def use(self, number):
        self.number = number
        self.numbers.append(number)

    def clock(self):
        return self.now

    def work(self, rows, seconds):
        """Threads wait for the slowest, and one that shares its core is slow."""
        number = self.number
        self.products.append(number)
        speed = min(number, self.decode_scales_to) if rows == DECODE else number
        waits = 20.0 if number > self.cores - self.others and number > 1 else 1.0
        self.now += waits * seconds / speed

    def passes(self, matrices):
        self.measured += 1
        works = {rows: lambda rows=rows: self.work(rows, 0.001) for rows in (DECODE, PREFILL)}
        return {rows: [work] * 10 for rows, work in works.items()}

    def threads(self, **kwargs):
        return Threads(self.cores, self.use, clock=self.clock, **kwargs)


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr(threads, "passes", lambda matrices: made.passes(matrices))
    monkeypatch.setattr(threads, "matrices", lambda model: iter(()))
    return made


def decode(machine, chosen, steps=1):
    """Steps of 20 ms on one thread; returns the number that the last had."""
    for _ in range(steps):
        with chosen.step(LARGE, 1):
            number = machine.number
            machine.work(DECODE, 0.02)
    return number


def prefill(machine, chosen, rows=100):
    with chosen.step(LARGE, rows):
        machine.work(PREFILL, 0.01 * rows)
        return machine.number


@pytest.mark.parametrize(("others", "number"), [(0, 4), (1, 3), (2, 2), (3, 1)])
def test_as_many_threads_as_there_are_free_cores(machine, others, number):
    machine.others = others
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen) == prefill(machine, chosen) == number
    assert str(chosen) == f"{number} of 4 threads (measured)"


def test_a_prompt_may_have_more_threads_than_a_token(machine):
    machine.decode_scales_to = 2
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen) == 2
    assert prefill(machine, chosen) == 4
    assert str(chosen) == "2 (prompts 4) of 4 threads (measured)"


def test_another_program_that_comes_takes_its_core_within_a_few_steps(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen, 1000) == 4
    machine.others = 1
    assert decode(machine, chosen, threads.STEPS + 1) == 3
    assert prefill(machine, chosen) == 3


def test_one_stall_in_several_steps_is_enough(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    decode(machine, chosen, 1000)
    before = machine.measured
    with chosen.step(LARGE, 1):
        machine.now += 0.7
    decode(machine, chosen)
    assert machine.measured > before


def test_steps_that_stay_slow_are_measured_once(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    before = machine.measured
    for seconds in [0.01] * 1000 + [0.02] * 200:  # another request, far into its context
        with chosen.step(LARGE, 1):
            machine.now += seconds
    assert machine.measured == before + 1


def test_free_cores_are_used_again(machine):
    machine.others = 3
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen) == 1
    decode(machine, chosen, 500)  # 10 s
    machine.others = 0
    machine.now += threads.AGAIN + 0.1
    assert decode(machine, chosen, 500) == 4


def test_a_number_without_hope_is_given_up(machine):
    machine.others = 3
    chosen = machine.threads()
    chosen.ready(LARGE)
    tried = [number for number in machine.numbers if number > 1]
    assert sorted(tried) == [2, 2, 3, 3, 4, 4]  # once a kind, not in every round
    assert machine.products.count(2) < 2 * 10  # and not to the end of a pass


def test_a_small_model_has_one_thread_and_is_not_measured(machine):
    chosen = machine.threads()
    chosen.ready(TINY)
    with chosen.step(TINY, 100):
        assert machine.number == 1
    assert machine.measured == 0


def test_measuring_takes_a_small_part_of_the_time(machine):
    machine.others = 3
    chosen = machine.threads()
    chosen.ready(LARGE)
    before, until, steps = machine.measured, machine.now + 600, 0
    while machine.now < until:
        decode(machine, chosen)
        steps += 1
    assert 20 <= machine.measured - before <= 30  # each 20 s
    assert steps * 0.02 > 0.97 * 600  # nearly all of the time was spent on steps


def test_a_prompt_never_waits_for_a_measuring(machine):
    machine.others = 3
    chosen = machine.threads()
    chosen.ready(LARGE)
    before = machine.measured
    machine.now += 1000
    prefill(machine, chosen)
    assert machine.measured == before


def test_no_more_threads_than_help(machine):
    machine.decode_scales_to = 1
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen) == 1


@pytest.mark.parametrize("model", [LARGE, TINY])
def test_a_setting_is_obeyed(machine, model):
    chosen = machine.threads(fixed=3)
    chosen.ready(model)
    with chosen.step(model, 1):
        assert machine.number == 3
    assert machine.measured == 0
    assert str(chosen) == "3 of 4 threads (a setting)"


def test_one_core_is_nothing_to_measure(machine):
    machine.cores = 1
    chosen = machine.threads()
    chosen.ready(LARGE)
    assert decode(machine, chosen) == 1
    assert machine.measured == 0
    assert str(chosen) == "1 of 1 threads"


def test_a_step_that_fails_is_no_measure_of_speed(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    with pytest.raises(ValueError, match="too long"), chosen.step(LARGE, 1):
        raise ValueError("too long")
    before = machine.measured
    decode(machine, chosen, 2 * threads.STEPS)
    assert machine.measured == before


def test_doctor_hears_a_number_where_no_model_is_loaded(machine):
    chosen = machine.threads()
    assert str(chosen) == "4 of 4 threads (measured)"
    assert machine.measured == 1
    assert str(chosen) == "4 of 4 threads (measured)"
    assert machine.measured == 1


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
        config=LARGE.config, layers=[{"a.weight": matrix, "norm": np.ones(3, np.float32)}]
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


REAL = """
from types import SimpleNamespace
from threadpoolctl import threadpool_info
from exo_kit.kit.llama import threads

model = SimpleNamespace(config=SimpleNamespace(hidden_size=4096, intermediate_size=4096))
chosen = threads.of_process()
with chosen.step(model, 1):
    print(*{library["num_threads"] for library in threadpool_info()}, chosen)
"""


def in_a_process(monkeypatch, **env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", REAL]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_librarys_own_setting_is_the_most(monkeypatch):
    output = in_a_process(monkeypatch, OPENBLAS_NUM_THREADS="1")
    if output.startswith("1"):
        assert output == "1 1 of 1 threads"
    else:
        pytest.skip("NumPy's BLAS is none that threadpoolctl knows")


def test_a_setting_reaches_the_library(monkeypatch):
    output = in_a_process(monkeypatch, OPENBLAS_NUM_THREADS="1", **{PREFIX + "THREADS": "2"})
    if output[0].isdigit() and " of " in output[2:]:
        assert output == "2 2 of 1 threads (a setting)"
    else:
        pytest.skip("NumPy's BLAS is none that threadpoolctl knows")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "9" * 5000, "²"])
def test_a_setting_that_is_no_number_is_a_sentence(monkeypatch, text):
    monkeypatch.setenv(PREFIX + "THREADS", text)
    threads.of_process.cache_clear()
    with pytest.raises(SettingError, match=f"{PREFIX}THREADS is .*a whole number from 1 on"):
        threads.of_process()


def test_every_step_runs_with_the_threads_that_are_chosen(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, CONFIGS["llama"])
    entered = []

    class Chosen(threads.Threads):
        def ready(self, model):
            entered.append(len(model.layers))

        @contextmanager
        def step(self, model, rows, requests):
            entered.append((rows, requests))
            yield
            entered.append("left")

    chosen = Chosen(2, entered.append)
    monkeypatch.setattr(threads, "of_process", lambda: chosen)
    backend = Backend()
    backend.load(slices()[0], tmp_path, None)
    backend.step("request", tokens(3))
    backend.step("request", tokens(1))
    backend.step_batch([("request", tokens(1)), ("other", tokens(5))])
    assert entered == [LAYERS, (3, 1), "left", (1, 1), "left", (6, 2), "left"]


def test_check_says_the_threads():
    assert Backend().check().endswith(f", {threads.of_process()}")
