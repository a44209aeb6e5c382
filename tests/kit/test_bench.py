"""`bench` measures the device and nothing else, and says what it measured."""

import asyncio
import json

import pytest
from command import BOTH
from toy import VOCABULARY, ToyAnswers, ToyBackend, ToyMany

from exo_kit.kit.command import bench
from exo_kit.kit.engine.engine import Engine


@pytest.fixture
def measured(run_cli, tmp_path):
    """Function `measured(*argv)` that runs `bench`; returns its figures and its words."""

    def run(*argv):
        file = tmp_path / "figures.json"
        code, out, error = run_cli("bench", "--raw", "--prompt", "ab", "--json", str(file), *argv)
        assert (code, error) == (0, "")
        return json.loads(file.read_text()), out

    return run


@BOTH
def test_it_says_what_it_measured(measured, use_backend, model_id, base):
    use_backend(base)
    figures, out = measured("--runs", "3", "--max-tokens", "5")
    expected = {"device": "toy", "prompt_tokens": 2, "max_tokens": 5, "runs": 3, "tokens": 5}
    assert figures | expected == figures
    assert figures["model"] == model_id
    for name in ("first_token_seconds", "prefill_tokens_per_second", "decode_tokens_per_second"):
        assert 0 < figures[name]["min"] <= figures[name]["median"] <= figures[name]["max"]
    assert f"model    {figures['model']}, " in out
    assert f"decode   {figures['decode_tokens_per_second']['median']:.1f} tokens/s (" in out
    assert "2 tokens in " in out
    assert "5 tokens in each of 3 answers" in out


class Clock:
    """Goes on when it is moved."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The command's clock, which no busy machine moves."""
    monkeypatch.setattr(bench, "time", made := Clock())
    return made


def test_the_device_is_measured_without_what_is_around_it(
    measured, use_backend, monkeypatch, clock
):
    def step(self, request_id, x):
        clock.now += 0.5
        return ToyBackend.step(self, request_id, x)

    def late(runner, *args):
        clock.now += 10.0
        return 5

    use_backend(step=step)
    monkeypatch.setattr(Engine, "pick", late)
    figures, _ = measured("--runs", "1", "--max-tokens", "4")
    assert figures["counted"] == "steps on the device"
    assert figures["decode_tokens_per_second"]["max"] == 2.0


@BOTH
def test_the_first_answer_is_not_measured(measured, use_backend, clock, base):
    requests = []

    def step(self, request_id, x):
        clock.now += 1.0 if requests else 60.0  # memory is touched first
        requests.append(request_id)
        return ToyBackend.step(self, request_id, x)

    async def answer(self, request):
        clock.now += 1.0 if requests else 60.0  # a server is still at an answer that nobody wants
        requests.append(request.id)
        async for piece in ToyAnswers.answer(self, request):
            yield piece

    use_backend(base, **({"step": step} if base is ToyBackend else {"answer": answer}))
    figures, _ = measured("--runs", "2", "--max-tokens", "3")
    assert len(set(requests)) == 3
    assert figures["first_token_seconds"]["max"] == 1.0


def test_an_answer_is_read_to_its_end(measured, use_backend):
    server = use_backend(ToyAnswers)
    measured("--runs", "2", "--max-tokens", "3")
    backend, _ = server.made  # the other is the one that is asked what it is
    assert backend.cancelled == []
    assert [request.max_tokens for request in backend.requests] == [3, 3, 3]


def test_without_a_number_of_runs_it_measures_for_a_while(
    measured, use_backend, monkeypatch, clock
):
    def step(self, request_id, x):
        clock.now += 1.0
        return ToyBackend.step(self, request_id, x)

    use_backend(step=step)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    assert measured("--max-tokens", "2")[0]["runs"] == bench.RUNS
    monkeypatch.setattr(bench, "SECONDS", 31.0)
    assert measured("--max-tokens", "2")[0]["runs"] == 16


def test_an_answer_longer_than_the_context_is_measured_as_far_as_it_goes(measured, use_backend):
    def step(self, request_id, x):
        self.room = getattr(self, "room", 0) + 1
        if self.room % 5 == 0:
            raise ValueError("the context is full")
        return ToyBackend.step(self, request_id, x)

    use_backend(step=step)
    figures, out = measured("--runs", "2", "--max-tokens", "90")
    assert (figures["tokens"], figures["ended"]) == (4, "the context is full")
    assert "note     the answers ended before 90 tokens: the context is full\n" in out


def test_an_answer_that_fills_the_context_says_so(measured, use_backend):
    use_backend(context=12)
    figures, out = measured("--runs", "2", "--max-tokens", "90", "--prompt", "abc", "--raw")
    assert (figures["tokens"], figures["ended"]) == (10, "the model's context is full")
    assert "note     the answers ended before 90 tokens: the model's context is full\n" in out


def test_a_prompt_longer_than_the_context_is_an_error(run_cli, use_backend):
    def step(self, *_):
        raise ValueError("the prompt is too long")

    use_backend(step=step)
    code, out, error = run_cli("bench", "--raw")
    assert (code, out) == (1, "")
    assert "the prompt is too long" in error


def test_a_prompt_of_several_slices_is_one_prefill(measured, use_backend, clock):
    def step(self, request_id, x):
        clock.now += 0.5
        return ToyBackend.step(self, request_id, x)

    use_backend(step=step, block=4)
    figures, _ = measured("--prompt-tokens", "40", "--runs", "1", "--max-tokens", "5")
    assert figures["first_token_seconds"]["median"] == 5.0
    assert figures["tokens"] == 5


@BOTH
def test_many_at_once_are_told_in_times_of_one(measured, use_backend, base):
    use_backend(base)
    figures, out = measured("--runs", "2", "--max-tokens", "9", "--at-once", "3")
    rate = figures["at_once"]
    assert rate["answers"] == 3
    assert f"at once  {rate['tokens_per_second']:.1f} tokens/s of 3 answers, " in out
    assert f"{rate['times_one']:.2f} times one's\n" in out


def test_every_measured_answer_computes_its_whole_prompt(measured, use_backend):
    backend = use_backend(ToyMany)
    measured("--prompt-tokens", "40", "--runs", "2", "--max-tokens", "2")
    computed = [rows for batch in backend.made[0].batches for _, rows in batch]
    assert computed == [40, 1] * 3


@pytest.mark.parametrize(
    ("ids", "counted"),
    [(True, "ids of the server"), (False, "the server's text, as the model's tokenizer splits it")],
)
def test_it_says_how_a_servers_tokens_were_counted(measured, use_backend, ids, counted):
    async def answer(self, request):
        for text in ("a", "bcd", "ef"):
            await asyncio.sleep(0.001)
            token_ids = tuple(VOCABULARY.index(letter) for letter in text)
            yield self.piece(text=text, ids=token_ids if ids else ())
        yield self.piece(finish="stop")

    use_backend(ToyAnswers, answer=answer)
    figures, out = measured("--runs", "1")
    assert (figures["tokens"], figures["counted"]) == (6, counted)
    assert f"counted  {counted}\n" in out


def test_an_answer_of_one_token_has_no_decode_rate(measured, use_backend):
    use_backend()
    figures, out = measured("--max-tokens", "1", "--runs", "1")
    assert figures["decode_tokens_per_second"] is None
    assert "decode   not measured" in out


def test_no_answer_is_told(run_cli, use_backend):
    async def answer(self, request):
        yield self.piece(finish="stop")

    use_backend(ToyAnswers, answer=answer)
    assert "The model answered nothing" in run_cli("bench", "--raw").err


@BOTH
def test_a_prompt_of_any_length(measured, use_backend, base):
    use_backend(base)
    figures, _ = measured("--prompt-tokens", "5", "--runs", "1", "--max-tokens", "2")
    assert figures["prompt_tokens"] == 5
    if base is ToyAnswers:
        assert base.made[0].requests[-1].prompt == "ababa"


def test_figures_that_cannot_be_written_are_shown_all_the_same(run_cli, use_backend, tmp_path):
    use_backend()
    code, out, error = run_cli("bench", "--raw", "--runs", "1", "--json", str(tmp_path))
    assert code == 1
    assert "decode " in out
    assert str(tmp_path) in error
