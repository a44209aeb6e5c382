"""Whole answers on their way to exo: where they end, their reasoning, a limit that isn't exo's."""

import asyncio
import importlib

import pytest
from driver import full_shard, generate, text_of
from plugin import ENGINE_CLASS
from ring import make_ring, model_shard
from toy import END, STOP, ToyAnswers, write_tokenizer

from exo_kit.kit.hosts.exo_0_0 import engine as engine_module
from exo_kit.kit.hosts.exo_0_0.node_state import end_of
from exo_kit.kit.text.reasoning import ReasoningMarks
from exo_kit.models import MODELS


class Scripted(ToyAnswers):
    """Says the pieces of its class."""

    pieces = ()

    async def answer(self, request):
        for members in self.pieces:
            yield self.piece(**members)


class Letters:
    """A retokenizer whose every letter is an id; a text that begins an answer has an "A" first."""

    def __init__(self, fast):
        self.fast, self.begun = fast, False

    def start(self):
        return Letters(self.fast)

    def feed(self, text):
        first, self.begun = "" if self.begun else "A", True
        return self.fast.encode(first + text).ids

    def follow(self):
        self.begun = True


@pytest.fixture
def answering(use, model_id, monkeypatch):
    """Function `answering(*pieces)`: an engine whose device gives these pieces."""

    def make(*pieces, also=()):
        write_tokenizer(MODELS[model_id]["repo"][ENGINE_CLASS], END, also=also)
        monkeypatch.setattr(engine_module, "Retokenizer", Letters)
        return use(type("Says", (Scripted,), {"pieces": pieces}))

    return make


async def ids_of(engine, model_id):
    return await generate([engine], [full_shard(engine, model_id)], "abc")


@pytest.mark.parametrize("behind", [(), (END,), (STOP, END), (END, 5, 6), (STOP,)])
async def test_the_first_end_token_ends_an_answer_whatever_stands_behind_it(
    answering, model_id, behind
):
    pieces = [{"ids": (4, 5, STOP, *behind)}, {"ids": (7,), "finish": "stop"}]
    engine = answering(*pieces, also=(STOP,))
    assert await ids_of(engine, model_id) == [4, 5, END]
    assert len(engine.engine.requests) == 0


async def test_text_behind_ids_does_not_begin_the_answer(answering, model_id):
    engine = answering({"ids": (4,)}, {"text": "xy"}, {"finish": "stop"})
    assert text_of(engine, await ids_of(engine, model_id)) == "dxy"
    engine = answering({"text": "xy"}, {"text": "z", "finish": "stop"})
    assert text_of(engine, await ids_of(engine, model_id)) == "Axyz"


async def test_reasoning_stands_within_marks(answering, model_id):
    pieces = [{"text": "h", "thinking": True}, {"text": "m", "thinking": True}, {"text": "yes"}]
    engine = answering(*pieces, {"finish": "stop"})
    assert text_of(engine, await ids_of(engine, model_id)) == "A<think>hm</think>yes"


@pytest.mark.parametrize(
    ("prompt", "pieces", "text"),
    [
        ("", [("h", True, None), ("", False, "stop")], "<think>h</think>"),
        ("", [("h", True, "stop")], "<think>h</think>"),
        ("", [("h", True, "length")], "<think>h"),
        ("x<think>\n", [("h", True, None), ("y", False, "stop")], "h</think>y"),
        ("x<think>\n", [("h</think>y", False, "stop")], "h</think>y"),
        ("", [("y", False, None), ("", False, "stop")], "y"),
    ],
)
def test_marks_stand_where_a_model_writes_them(prompt, pieces, text):
    thinking = ReasoningMarks(prompt)
    assert "".join(thinking.feed(*piece) for piece in pieces) == text


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("finish", "cut"), [("length", True), ("stop", False)])
async def test_a_limit_of_the_servers_is_known_on_every_node(
    answering, model_id, downloader, size, finish, cut
):
    node_module = importlib.import_module("exo.orchestration.node")
    if not hasattr(node_module.Node, "process_prompt"):
        pytest.skip("this exo has no node")
    engines = [answering({"ids": (4,), "finish": finish}) for _ in range(size)]
    nodes = make_ring(node_module, engines, downloader)
    ended = []
    nodes[0].on_token.register("test").on_next(lambda *result: ended.append(result))
    shard = model_shard(nodes[0].inference_engine, model_id)
    await nodes[0].process_prompt(shard, "abc", request_id=f"r{size}{finish}")
    states = [node.inference_engine.state for node in nodes]
    async with asyncio.timeout(30):
        while not any(finished for *_, finished in ended):  # noqa: ASYNC110 - exo's own loop
            await asyncio.sleep(0.001)
    assert [state.ends[f"r{size}{finish}"].cut for state in states] == [cut] * size
    assert end_of(f"r{size}{finish}").cut is cut
