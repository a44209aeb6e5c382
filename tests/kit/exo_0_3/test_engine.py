"""exo 0.3's runner drives the plugin: many answers, their ends, and the end of the process."""

import pytest
from toy_plugin import SLOW, begin


def test_an_answer_has_its_text_its_end_and_its_counts(shared):
    exo = shared()
    answer = exo.ask("ab", max_output_tokens=3)
    assert (answer.text, answer.end) == ("cde", "FinishedResponse")
    assert answer.last["finish_reason"] == "length"
    usage = answer.last["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 3, 5)
    assert answer.last["stats"]["generation_tokens"] == 3
    whole = exo.ask("x", task="whole")
    assert (whole.text, whole.last["finish_reason"]) == ("yz <stop>", "stop")


def test_a_stop_text_ends_an_answer_and_is_not_in_it(shared):
    exo = shared()
    for stop in ("fg", ["zz", "fg"]):
        answer = exo.ask("a", task=str(stop), stop=stop)
        assert (answer.text, answer.last["finish_reason"]) == ("bcde", "stop")


def test_tokens_of_a_fast_answer_are_joined_and_none_is_lost(shared):
    exo = shared(SLOW)
    for stream in (True, False):
        answer = exo.ask("a", task=f"fast {stream}", stream=stream, max_output_tokens=1000)
        assert answer.last["usage"]["completion_tokens"] == 1000
        assert len(answer.text) == 1000
        chunks = [event for event in answer.events if event["what"] == "TokenChunk"]
        assert len(chunks) < 200, "exo takes an event for each"


def test_logprobs_come_a_token_a_chunk(shared):
    exo = shared()
    answer = exo.ask("ab", max_output_tokens=3, logprobs=True, top_logprobs=2)
    *chunks, last = [event["more"] for event in answer.events if event["what"] == "TokenChunk"]
    assert [chunk["text"] for chunk in chunks] == ["c", "d", "e"]
    for chunk in chunks:
        best, second = chunk["top_logprobs"]
        assert (best["token"], best["logprob"]) == (chunk["text"], chunk["logprob"])
        assert best["bytes"] == list(chunk["text"].encode())
        assert second["logprob"] < best["logprob"] <= 0
    assert last["logprob"] is None
    chunks = exo.ask("ab", task="five", max_output_tokens=1, logprobs=True).events
    assert len(chunks[0]["more"]["top_logprobs"]) == 5, "as exo's own engine has it"
    chunks = exo.ask("ab", task="none", max_output_tokens=1, top_logprobs=2).events
    assert chunks[0]["more"]["logprob"] is None


def test_answers_at_once_each_have_their_own_text(shared):
    exo = shared(SLOW)
    begin(exo, "first")
    exo.wait_for("TokenChunk")
    tasks = {f"task {letter}": letter for letter in "aeim"}
    for task, letter in tasks.items():
        begin(exo, task, letter, max_output_tokens=4)
    answers = exo.answers(*tasks)
    assert [answers[task].text for task in tasks] == ["bcde", "fghi", "jklm", "nopq"]
    exo.send(cancel="first")  # one after the other, it would have come first
    assert exo.answers("first")["first"].end == "CancelledResponse"


def test_a_cancel_ends_an_answer_and_the_device_forgets_it(shared):
    exo = shared(SLOW)
    begin(exo, "long")
    exo.wait_for("TokenChunk")
    exo.send(cancel="long")
    assert exo.answers("long")["long"].end == "CancelledResponse"
    assert exo.ask("a", max_output_tokens=2).text == "bc"
    assert "forget long" in exo.notes()


def test_a_cancel_that_is_faster_than_its_task_ends_it(shared):
    exo = shared(SLOW)
    exo.send(cancel="early")
    begin(exo, "before")
    exo.wait_for("TokenChunk")
    exo.send(cancel="before")  # it comes behind the other
    assert exo.answers("before")["before"].end == "CancelledResponse"
    answer = exo.ask("a", task="early")
    assert (answer.text, answer.end) == ("", "CancelledResponse")


def test_cancel_all_ends_all_and_no_later_one(shared):
    exo = shared(SLOW)
    for task in "ab":
        begin(exo, task, task)
    exo.until(lambda event: event["what"] == "TokenChunk" and event["task"] == "b")
    exo.send(cancel="CANCEL_ALL_TASKS")
    assert {answer.end for answer in exo.answers("a", "b").values()} == {"CancelledResponse"}
    assert exo.ask("a", task="later", max_output_tokens=1).text == "b"


def test_an_error_of_the_device_is_a_sentence_and_the_next_is_answered(shared):
    exo = shared(SLOW)
    answer = exo.ask("a", task="bad")
    assert (answer.error, answer.end) == ("the toy is broken", "FinishedResponse")
    assert exo.ask("a", max_output_tokens=1).text == "b"


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"images": ["aGk="]}, "this engine takes text alone, and no images"),
        ({"image": True}, "this engine answers in text"),
        ({"content": "a" * 5}, "the prompt is too long"),
    ],
)
def test_what_the_engine_can_t_do_is_refused_in_a_sentence(shared, params, sentence):
    exo = shared("""
class Backend(Backend):
    context = 4
""")
    answer = exo.ask(**{"content": "a", **params})
    assert sentence in answer.error
    assert exo.ask("a", max_output_tokens=1).text == "b"


def test_parts_of_texts_are_joined_and_bare_input_is_taken(shared):
    exo = shared()
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    answer = exo.ask(
        chat_template_messages=[{"role": "user", "content": parts}], max_output_tokens=1
    )
    assert answer.text == "c"
    bare = exo.ask(task="bare", chat_template_messages=None, instructions="ab", max_output_tokens=2)
    assert bare.text == "cd"


REASONS = """
class Backend:
    contract = 1
    async def load(self, model, folder, tokenizer): note(f"load {model.id} {model.repository}")
    async def answer(self, request):
        from exo_kit.kit.contract import Piece
        for text in ("<thi", "nk>so", " so</think", ">yes"):
            yield Piece(text=text)
        yield Piece(finish="stop")
    async def close(self): note("close")
    async def check(self): return "toy"
"""


def test_reasoning_is_told_apart_and_counted(shared):
    answer = shared(REASONS).ask("a", stream=True)
    assert (answer.reasoning, answer.text) == ("so so", "yes")
    assert answer.last["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_server_s_backend_is_given_the_model_that_the_plugin_names(shared):
    assert shared(REASONS).notes() == ["load toy organization/toy"]
