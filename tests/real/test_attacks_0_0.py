"""What a stranger and a published model try on a real exo 0.0.

The stranger is a client that knows another's prompt, and the model is a finished export whose
graph never ends or takes all memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from host_0_0 import EXO_PYTHON, VARIANTS, WHY_NOT
from nodes_0_0 import Node
from test_rendered_plugin import run
from world_0_0 import World, make_world

pytestmark = [
    pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT),
    pytest.mark.xdist_group("real-exo"),
]

EXPORTS = Path(__file__).with_name("hostile_exports.py")
BLOCK = 32  # tokens that are taken over together
BOUND_SECONDS = 60.0  # of a step with 128 tokens, which has more than one with fewer
QUESTION = "What may a question be, whose tokens are more than those of one block alone?"
REFUSED = [
    ("loop", "has a Loop, which may never end"),
    ("nested", "has more than 3 graphs in each other"),
    ("all_memory", "takes more memory than there is for it"),
    ("folding", "takes longer than"),
]


@contextmanager
def one_node(
    template: Path, folder: Path, variant: str, **settings: str
) -> Iterator[tuple[World, Node]]:
    """A node with a variant's plugin as it is."""
    with (
        make_world(template, folder, VARIANTS[variant], played=False) as world,
        world.ring("one", 1, seconds=90, **settings) as [node],
    ):
        yield world, node


def reused(node: Node, question: str, guess: str) -> float:
    """Tokens that a stranger's prompt takes over, by the node's counter."""
    before = node.metrics()["reused_tokens_total"]
    turns = ("user", question), ("assistant", guess), ("user", "Go on.")
    reply = node.ask([{"role": role, "content": text} for role, text in turns])
    assert reply.status == 200, reply
    return node.metrics()["reused_tokens_total"] - before


def test_nobody_learns_a_token_of_another_s_answer(template: Path, tmp_path: Path) -> None:
    with one_node(template, tmp_path, "numpy") as (_, node):
        for right_first in (True, False):
            question = f"{right_first}: {QUESTION}"
            answer = node.ask(question).text
            right = answer.partition("\ufffd")[0]  # what can be said again in text
            assert len(right) > 2 * BLOCK, f"no answer to guess: {answer!r}"
            wrong = ("b" if right[0] == "a" else "a") + right[1:]
            guesses = (right, wrong) if right_first else (wrong, right)
            first, second = (reused(node, question, guess) for guess in guesses)
            assert first == second >= BLOCK
            assert reused(node, question, right) >= first + BLOCK, "a prompt's rows are taken over"


def test_a_graph_without_end_or_of_all_memory_is_refused_in_a_sentence(
    template: Path, tmp_path: Path
) -> None:
    settings = {"EXO_ONNX_EXPORT": "model.onnx"}
    with one_node(template, tmp_path, "onnx", **settings) as (world, node):
        downloads = Path(node.settings["EXO_HOME"]) / "downloads"

        def write(graph: str, model: int) -> None:
            _, repository, layers = world.host.variant.models[model]
            folder = downloads / repository.replace("/", "--")
            run(world.host.python, EXPORTS, graph, folder, str(layers))

        write("sound", 0)
        answer = node.ask("Hello?")
        assert answer.status == 200, answer
        for graph, words in REFUSED:
            write(graph, 1)
            reply = node.ask("Hello?", model=1, seconds=100)
            print(graph, reply)
            assert reply.status == 500
            assert reply.is_sentence(words), reply
            assert reply.seconds < BOUND_SECONDS, reply
            assert node.ask("Hello?").text == answer.text
