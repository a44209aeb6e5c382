"""RKLLM in the runner's process, on a real exo 0.3: a library that plays each of its versions.

SOAK times as many requests: SOAK=10 asks 500 of each version.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import Namespace, Node, install, namespace, node, why_not
from runtime_library import (
    COMPILER,
    GROUPS,
    NO_COMPILER,
    REPOSITORY,
    VOCABULARY,
    Board,
    question,
    soak,
)
from test_rendered_plugin import run

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.xdist_group("real-exo-0-3"),
]

MODEL = "exo_rkllm/qwen2.5-1.5b-instruct"


@pytest.fixture(scope="module")
def python(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """exo 0.3 with the RKLLM plugin."""
    root = tmp_path_factory.mktemp("rkllm-0-3")
    plugin = render_into(template, root / "exo-rkllm", variant="rkllm")
    made = install(root / "venv", plugin)
    run(made, "-c", VOCABULARY, root / REPOSITORY, root / "vocabulary", cwd=plugin / "tests")
    return made


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A network of their own."""
    with namespace() as own:
        yield own


@pytest.fixture(params=GROUPS)
def placed(
    request: pytest.FixtureRequest, python: Path, space: Namespace, tmp_path: Path
) -> Iterator[tuple[Node, Board]]:
    """A node whose model runs on a library of this group."""
    root = python.parents[2]
    board = Board(tmp_path, request.param, root / "vocabulary")
    board.plays("" if request.param == "110" else "leak")  # 1.1 has no call to clear with
    command = (python, "-m", "exo_rkllm", "exo", "--place", "none")
    settings = board.settings | {"EXO_RKLLAMA_FOLDERS": str(root / REPOSITORY)}
    with node(space, tmp_path / "node", *command, **settings) as started:
        started.place(MODEL)
        yield started, board


def wrong(started: Node, n: int) -> str | None:
    """Ask once; what is wrong with it. A third leaves, a sixth has a limit, half are streamed."""
    if n % 3 == 2:
        prompt = question(n, long=True)
        answer = started.stream(MODEL, prompt, most=3, max_tokens=1500)
        return None if prompt.startswith(answer.text) else f"{n} cut: {answer.text!r}"
    prompt, most = question(n), 20 if n % 6 == 0 else 400
    if n % 2:
        choice = started.chat(MODEL, prompt, max_tokens=most)["choices"][0]
        text, finish = choice["message"]["content"], choice["finish_reason"]
    else:
        streamed = started.stream(MODEL, prompt, max_tokens=most)
        text, finish = streamed.text, streamed.finish
    if most == 20:
        is_right = 0 < len(text) < len(prompt) and prompt.startswith(text) and finish == "length"
    else:
        is_right = (text, finish) == (prompt, "stop")
    return None if is_right else f"{n}: {text!r} ({finish})"


def test_each_answer_is_the_library_s_to_the_letter(placed: tuple[Node, Board]) -> None:
    started, board = placed
    [runner] = started.runners()
    soak(board, runner, lambda n: wrong(started, n))
    assert started.runners() == [runner]


@pytest.mark.parametrize("placed", ["130"], indirect=True)
def test_a_crash_in_the_library_costs_the_runner_and_is_said(placed: tuple[Node, Board]) -> None:
    started, board = placed
    assert started.text(MODEL, question(1), max_tokens=400) == question(1)
    [runner] = started.runners()
    board.plays("crash")
    answer = started.stream(MODEL, question(2), max_tokens=400)
    assert "Runner shutdown before completing command" in (answer.error or ""), answer.events
    assert "Segmentation fault" in (answer.error or "")
    board.plays("")
    started.wait_for("another runner", lambda: started.runners() not in ([], [runner]) or None)
    started.wait_for("rest", lambda: "RunnerReady" in started.statuses().values() or None)
    assert started.text(MODEL, question(3), max_tokens=400) == question(3)
