"""RKLLM in the node's process, on a real exo 0.0: a library that plays each of its versions.

SOAK times as many requests: SOAK=10 asks 500 of each version.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_0_0 import wait
from host_0_0 import EXO_PYTHON, VARIANTS, WHY_NOT
from nodes_0_0 import Node
from runtime_library import (
    COMPILER,
    GROUPS,
    NO_COMPILER,
    VOCABULARY,
    Board,
    question,
    soak,
)
from world_0_0 import World, make_world

pytestmark = [
    pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.xdist_group("real-exo"),
]

TOKENS = 150  # the node's limit of an answer: a short question has fewer, a long one more


@pytest.fixture(scope="module")
def world(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """exo 0.0 with the RKLLM plugin as it is."""
    folder = tmp_path_factory.mktemp("rkllm-0-0")
    with make_world(template, folder, VARIANTS["rkllm"], played=False) as made:
        _, repository, _ = made.host.variant.models[0]
        tokenizer = made.checkpoints / repository.replace("/", "--")
        made.host.run(VOCABULARY, tokenizer, folder / "vocabulary")
        yield made


@pytest.fixture(params=GROUPS)
def started(
    request: pytest.FixtureRequest, world: World, tmp_path: Path
) -> Iterator[tuple[Node, Board]]:
    """A node on a library of this group."""
    board = Board(tmp_path, request.param, world.folder / "vocabulary")
    board.plays("" if request.param == "110" else "leak")  # 1.1 has no call to clear with
    with world.ring(tmp_path.name, 1, tokens=TOKENS, **board.settings) as [node]:
        yield node, board


def wrong(node: Node, n: int) -> str | None:
    """Ask once; what is wrong with it. A third leaves, a sixth has a limit, half are streamed."""
    prompt = question(n, long=n % 3 == 2 or n % 6 == 0)
    if n % 3 == 2:
        client = node.client(prompt, stream=True)
        client.read(3)
        client.leave()
        text = "".join(client.texts)
        return None if prompt.startswith(text) else f"{n} cut: {text!r}"
    reply = node.ask(prompt, stream=bool(n % 2))
    if n % 6 == 0:
        is_right = 0 < len(reply.text) < len(prompt) and prompt.startswith(reply.text)
        is_right = is_right and reply.finish == "length"
    else:
        is_right = (reply.text, reply.finish) == (prompt, "stop")
    return None if is_right else f"{n}: {reply}"


def test_each_answer_is_the_library_s_to_the_letter(started: tuple[Node, Board]) -> None:
    node, board = started
    assert node.process is not None
    soak(board, node.process.pid, lambda n: wrong(node, n))
    assert wait(lambda: not node.in_flight(), 10)
    assert "Traceback" not in node.log


@pytest.mark.parametrize("started", ["130"], indirect=True)
def test_a_crash_in_the_library_takes_the_node_along(started: tuple[Node, Board]) -> None:
    """As the README says: exo 0.0 runs a plugin in its own process."""
    node, board = started
    assert node.ask(question(1)).text == question(1)
    board.plays("crash")
    reply = node.ask(question(2))
    assert reply.status == 0, reply  # the connection broke
    assert node.gone()
    assert node.process is not None
    assert node.process.returncode == -signal.SIGSEGV
    board.plays("")
    node.start()
    assert wait(lambda: node.sees() == 1, 60)
    assert node.ask(question(3)).text == question(3)
