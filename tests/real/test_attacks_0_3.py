"""What a stranger, a server and a published model try on a real, unmodified exo 0.3.

The stranger is a client that knows another's prompt, the server says more than it was asked for,
and the model is a finished export whose graph never ends or takes all memory.
"""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import Namespace, Node, install, namespace, node, why_not

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.xdist_group("real-exo-0-3"),
]

VARIANTS = ("numpy", "onnx", "openai")
EXPORTS = Path(__file__).with_name("hostile_exports.py")
BLOCK = 32  # tokens that are taken over together
HALF = 0xC3  # of the random checkpoint's tokenizer, whose ids are bytes: the half of an "é"
BESIDE_SECONDS = 5.0  # that another client waits at most; decoding anew at each id took 20
QUESTION = "What may a question be, whose tokens are more than those of one block alone?"
REFUSED = [
    ("loop", "has a Loop, which may never end"),
    ("nested", "has more than 3 graphs in each other"),
    ("all_memory", "takes more memory than there is for it"),
    ("folding", "takes longer than"),
]
WRITE = """
import sys
from pathlib import Path
from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint
write_checkpoint(Path(sys.argv[1]), DEFAULT)
"""


@pytest.fixture(scope="module")
def python(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """exo with three plugins."""
    root = tmp_path_factory.mktemp("attacks")
    plugins = [
        render_into(template, root / f"exo-{variant}", variant=variant) for variant in VARIANTS
    ]
    return install(root / "venv", *plugins, needs=("onnxruntime",))


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A network of their own."""
    with namespace() as own:
        yield own


@pytest.fixture(scope="module")
def checkpoint(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    subprocess.run([python, "-c", WRITE, folder], check=True)
    return folder


def command(python: Path, variant: str) -> tuple[str | Path, ...]:
    """Starts exo with a plugin."""
    return (python, "-m", f"exo_{variant}", "exo", "--place", "none")


def test_nobody_learns_a_token_of_another_s_answer(
    python: Path, space: Namespace, checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"EXO_NUMPY_FOLDERS": str(checkpoint)}
    with node(space, tmp_path / "node", *command(python, "numpy"), **settings) as started:
        started.place(model := "exo_numpy/model")

        def reused(question: str, guess: str) -> int:
            """Tokens that a stranger's prompt takes over, by its own counts."""
            turns = ("user", question), ("assistant", guess), ("user", "Go on.")
            messages = [{"role": role, "content": text} for role, text in turns]
            stream = started.stream(model, "", messages=messages, max_tokens=1)
            assert stream.usage is not None, stream.events
            return int(stream.usage["prompt_tokens_details"]["cached_tokens"])

        for right_first in (True, False):
            question = f"{right_first}: {QUESTION}"
            answer = started.stream(model, question, max_tokens=200)
            right = answer.text.partition("\ufffd")[0]  # what can be said again in text
            assert len(right) > 2 * BLOCK, f"no answer to guess: {answer.text!r}"
            wrong = ("b" if right[0] == "a" else "a") + right[1:]
            guesses = (right, wrong) if right_first else (wrong, right)
            first, second = (reused(question, guess) for guess in guesses)
            assert first == second >= BLOCK
            assert reused(question, right) >= first + BLOCK, "a prompt's own rows are taken over"


@pytest.fixture(scope="module")
def played(
    python: Path,
    space: Namespace,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Node, str]]:
    """A node with a hostile server's model."""
    hostile_server = pytest.importorskip("hostile_server")
    tokenizer = checkpoint / "tokenizer.json"
    server = space.call(lambda: hostile_server.HostileServer("model", tokenizer, HALF))
    settings = {"EXO_OPENAI_URL": server.start().url, "EXO_OPENAI_FOLDERS": str(checkpoint)}
    try:
        home = tmp_path_factory.mktemp("played")
        with node(space, home, *command(python, "openai"), **settings) as started:
            model = "exo_openai/model"
            started.wait_for("card", lambda: model in str(started.get("/v1/models")) or None)
            started.place(model)
            yield started, model
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("prompt", "most", "says"),
    [
        ("halves 16000 1", 10, "\ufffd"),
        ("halves 16000 160", 20_000, "\ufffd"),
        ("letters 300000 3000", 10, "a" * 10),
        ("letters 300000 1", 10, "sent more than 1048576 bytes at once"),
    ],
)
def test_a_server_that_says_too_much_holds_up_nobody(
    played: tuple[Node, str], prompt: str, most: int, says: str
) -> None:
    started, model = played
    with ThreadPoolExecutor(1) as pool:
        attacked = pool.submit(started.stream, model, prompt, max_tokens=most)
        began, beside = time.monotonic(), started.stream(model, "Hello?", max_tokens=30)
        seconds = time.monotonic() - began
        answer = attacked.result()
    assert beside.text == "Hello there."
    assert seconds <= BESIDE_SECONDS
    assert says in (answer.error or answer.text), answer.events[-3:]
    assert len(answer.text) <= most
    assert answer.error or answer.usage is None or answer.usage["completion_tokens"] <= most


def test_a_graph_without_end_or_of_all_memory_is_refused_in_a_sentence(
    python: Path, space: Namespace, tmp_path: Path
) -> None:
    sound, hostile = tmp_path / "sound", tmp_path / "hostile"
    for folder in (sound, hostile):
        subprocess.run([python, EXPORTS, "sound", folder], check=True)
    settings = {"EXO_ONNX_FOLDERS": f"{sound}:{hostile}"}
    with node(space, tmp_path / "node", *command(python, "onnx"), **settings) as started:
        started.place("exo_onnx/sound")
        text = started.text("exo_onnx/sound", "Hello?")
        for graph, words in REFUSED:
            subprocess.run([python, EXPORTS, graph, hostile], check=True)
            placed = start(started, "exo_onnx/hostile")
            wait_for_failure(started, words)
            assert started.text("exo_onnx/sound", "Hello?") == text
            started.delete(placed)


def start(started: Node, model: str) -> str:
    """Start an instance, and wait for nothing but its name."""
    before = set(started.get("/state")["instances"])
    status, reply = started.request("POST", "/place_instance", {"model_id": model})
    assert status == 200, reply

    def name() -> str | None:
        return next(iter(set(started.get("/state")["instances"]) - before), None)

    return started.wait_for("instance", name)


def wait_for_failure(started: Node, words: str) -> None:
    """Wait until exo tells of a runner that failed in these words."""

    def is_told() -> bool | None:
        runners = started.get("/state")["runners"].values()
        return any("RunnerFailed" in each and words in str(each) for each in runners) or None

    started.wait_for("sentence", is_told)
