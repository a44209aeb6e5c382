"""exo 0.3's runner drives the plugin: many answers, their ends, and the end of the process."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from node_0_3 import Node, node
from toy_plugin import MODEL, make, python_path

Start = Callable[..., Node]


class Nodes:
    """Nodes on which a toy is ready, one for each toy, and what was done with its device."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._shared: dict[str, Node] = {}
        self._count = count(1)

    def started(self, backend: str = "", **settings: str) -> Node:
        """One of its own, that a test may end."""
        folder = self._folder / str(next(self._count))
        folder.mkdir()
        plugin, notes = make(folder / "plugins", backend), folder / "notes"
        notes.touch()
        settings |= {"TOY_NOTES": str(notes)}
        manager = node(folder, python_path=python_path(plugin), **settings)
        exo = self._stack.enter_context(manager)
        exo.pid = exo.place(MODEL)
        exo.notes = lambda: notes.read_text().splitlines()
        return exo

    def shared(self, backend: str = "") -> Node:
        """One that other tests use too: it has to be as ready afterwards as it was."""
        if backend not in self._shared:
            self._shared[backend] = self.started(backend)
        return self._shared[backend]

    def close(self) -> None:
        """End all of them."""
        self._stack.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """This module's nodes, which share a home."""
    folder = tmp_path_factory.mktemp("nodes")
    made = Nodes(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXO_HOME", str(folder / "home"))
        yield made
        made.close()


@pytest.fixture
def started(nodes: Nodes) -> Start:
    """Function `started(backend)`: a node of its own."""
    return nodes.started


@pytest.fixture
def shared(nodes: Nodes) -> Start:
    """Function `shared(backend)`: a node that other tests use too."""
    return nodes.shared


# But for what is called "fast"; and "bad" fails.
SLOW = """
class Backend(Backend):
    def step(self, request_id, x):
        if request_id == "bad":
            raise RuntimeError("the toy\\nis broken")
        time.sleep(0.0 if request_id.startswith("fast") else 0.05)
        logits = super().step(request_id, x)
        logits[..., 1:27] += 2.0 * (logits[..., 27:].sum() > 0)  # never an end
        return logits
"""


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
    exo.send(ask="first", chat_template_messages=[{"role": "user", "content": "a"}], stream=True)
    exo.wait_for("TokenChunk")
    tasks = {f"task {letter}": letter for letter in "aeim"}
    for task, letter in tasks.items():
        messages = [{"role": "user", "content": letter}]
        exo.send(
            ask=task, chat_template_messages=messages, temperature=0.0, max_output_tokens=4,
            stream=True,
        )  # fmt: skip
    answers = exo.answers(*tasks)
    assert [answers[task].text for task in tasks] == ["bcde", "fghi", "jklm", "nopq"]
    exo.send(cancel="first")  # one after the other, it would have come first
    assert exo.answers("first")["first"].end == "CancelledResponse"


def test_a_cancel_ends_an_answer_and_the_device_forgets_it(shared):
    exo = shared(SLOW)
    exo.send(ask="long", chat_template_messages=[{"role": "user", "content": "a"}], stream=True)
    exo.wait_for("TokenChunk")
    exo.send(cancel="long")
    assert exo.answers("long")["long"].end == "CancelledResponse"
    assert exo.ask("a", max_output_tokens=2).text == "bc"
    assert "forget long" in exo.notes()


def test_a_cancel_that_is_faster_than_its_task_ends_it(shared):
    exo = shared(SLOW)
    exo.send(cancel="early")
    exo.send(ask="before", chat_template_messages=[{"role": "user", "content": "a"}], stream=True)
    exo.wait_for("TokenChunk")
    exo.send(cancel="before")  # it comes behind the other
    assert exo.answers("before")["before"].end == "CancelledResponse"
    answer = exo.ask("a", task="early")
    assert (answer.text, answer.end) == ("", "CancelledResponse")


def test_cancel_all_ends_all_and_no_later_one(shared):
    exo = shared(SLOW)
    for task in "ab":
        exo.send(ask=task, chat_template_messages=[{"role": "user", "content": task}], stream=True)
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


def test_a_load_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    plugin = make(
        tmp_path / "plugins",
        """
class Backend(Backend):
    def load(self, layers, folder, tokenizer):
        raise RuntimeError("the toy has no battery")
""",
    )
    with node(tmp_path, python_path=python_path(plugin)) as exo:
        exo.place(MODEL)
        failed = exo.events[-1]
        assert failed["what"] == "RunnerFailed"
        assert "could not load exo_kit/toy: the toy has no battery" in failed["more"]
        assert exo.wait_for("ended")["more"] == 1


def test_a_load_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    plugin = make(
        tmp_path / "plugins",
        """
class Backend(Backend):
    def load(self, layers, folder, tokenizer):
        while not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.01)
        super().load(layers, folder, tokenizer)
""",
    )
    settings = {"TOY_NOTES": str(tmp_path / "notes"), "GO_ON": str(tmp_path / "go on")}
    with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
        exo.send(place=MODEL)
        for _ in range(2):
            exo.wait_for("RunnerLoading")
        (tmp_path / "go on").touch()
        exo.wait_for("RunnerReady")
    progress = [event["more"] for event in exo.events if event["what"] == "RunnerLoading"]
    assert len(progress) >= 3
    assert (progress[0], progress[-1]) == ([0, 2], [2, 2])
    assert progress == sorted(progress)


def test_a_deleted_instance_gives_the_device_back(started):
    exo = started()
    exo.send(delete=True)
    assert exo.wait_for("ended")["more"] == 0
    assert exo.notes().count("close") == 1


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_gives_the_device_back_and_ends_the_process_at_once(started, busy):
    exo = started(SLOW)
    if busy:
        exo.send(ask="long", chat_template_messages=[{"role": "user", "content": "a"}], stream=True)
        exo.wait_for("TokenChunk")
    begun = time.monotonic()
    os.kill(exo.pid, signal.SIGTERM)
    assert exo.wait_for("ended")["more"] == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 30  # its answer would take hours
    assert exo.notes().count("close") == 1


def test_the_end_of_a_killed_node_ends_its_runner(started):
    exo = started()
    exo.process.kill()
    exo.gone()
    assert exo.notes().count("close") == 1


def test_metrics_are_served_on_the_next_free_port(started):
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        exo = started(EXO_KIT_METRICS_PORT=str(port))
        line = next(line for line in exo.log.splitlines() if "metrics are at" in line)
        address = line.partition("metrics are at ")[2]
        assert address != f"http://127.0.0.1:{port}/metrics"
        exo.ask("a", max_output_tokens=2)
        with urllib.request.urlopen(address) as reply:
            assert (
                'exo_kit_requests_total{cause="",outcome="finished"} 2.0' in reply.read().decode()
            )
