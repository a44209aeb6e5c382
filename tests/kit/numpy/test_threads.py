"""The choice of threads, on a machine that is played: no test depends on this one's cores."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from checkpoints import CONFIGS, LAYERS, slices, tokens

from exo_kit.backend import Backend
from exo_kit.kit.llama import threads
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.llama.threads import DECODE, PREFILL, Threads

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


@contextmanager
def burst(machine, rows, slow):
    """Whenever products of so many rows are measured, these numbers of threads are slow."""
    work = machine.work

    def disturbed(kind, seconds):
        work(kind, 3 * seconds if kind == rows and machine.number in slow else seconds)

    machine.work = disturbed
    yield
    machine.work = work


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
    assert decode(machine, chosen, 2000) == 4
    machine.others = 1
    assert decode(machine, chosen, threads.STEPS + 1) == 3
    assert prefill(machine, chosen) == 3


def test_one_stall_in_several_steps_is_enough(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    decode(machine, chosen, 2000)
    before = machine.measured
    with chosen.step(LARGE, 1):
        machine.now += 0.7
    decode(machine, chosen)
    assert machine.measured > before


def test_steps_that_stay_slow_are_measured_once(machine):
    chosen = machine.threads()
    chosen.ready(LARGE)
    decode(machine, chosen, 1000)
    before = machine.measured
    for seconds in [0.01] * 1000 + [0.02] * 200:  # another request, far into its context
        with chosen.step(LARGE, 1):
            machine.now += seconds
    assert machine.measured == before + 1


@pytest.mark.parametrize(("rows", "other"), [(PREFILL, DECODE), (DECODE, PREFILL)])
def test_a_measuring_that_a_burst_spoils_is_outvoted(machine, rows, other):
    """A prompt's threads were chosen once, wrongly, and a token's had all cores: so it stayed."""
    chosen = machine.threads()
    with burst(machine, rows, slow=(4, 3)):
        chosen.ready(LARGE)
    assert (chosen._chosen[rows], chosen._chosen[other]) == (2, 4)
    decode(machine, chosen, 2000)
    assert prefill(machine, chosen) == decode(machine, chosen) == 4
    assert machine.measured == threads.MEASURINGS
    decode(machine, chosen, 10_000)
    assert machine.measured == threads.MEASURINGS  # it is sure now


def test_a_later_burst_changes_a_choice_for_one_measuring_at_most(machine):
    machine.others = 1
    chosen = machine.threads()
    chosen.ready(LARGE)
    decode(machine, chosen, 1000)
    machine.now += threads.AGAIN
    with burst(machine, PREFILL, slow=(3,)):
        before = machine.measured
        while machine.measured == before:
            decode(machine, chosen)
    decode(machine, chosen, 1000)
    assert prefill(machine, chosen) == decode(machine, chosen) == 3


def test_a_prompt_with_fewer_threads_than_a_token_is_measured_again(machine):
    chosen = machine.threads()
    with burst(machine, PREFILL, slow=(4, 3)):
        chosen.ready(LARGE)
        decode(machine, chosen, 1000)  # both measurings say so
    before = machine.measured
    machine.now += threads.AGAIN
    decode(machine, chosen, 2000)
    assert machine.measured > before
    assert prefill(machine, chosen) == 4


def test_measurings_that_never_agree_end(machine, monkeypatch):
    chosen = machine.threads()
    numbers = iter([4, 3, 4, 3, 4, 3])
    monkeypatch.setattr(Threads, "_fastest", lambda *_: next(numbers))
    chosen.ready(LARGE)
    for _ in range(2):
        decode(machine, chosen, 1000)
    assert machine.measured <= threads.MEASURINGS


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
