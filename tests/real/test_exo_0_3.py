"""Rendered plugins on a real, unmodified exo 0.3: one node, two, and what can go wrong.

EXO_REAL_MODEL names a folder with a model, EXO_REAL_ANSWERS a JSON list of {"prompt", "text"}, its
greedy answers of up to 40 tokens. Without them, a random checkpoint answers, and what it has to say
is what the plugin's own `generate` says.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import Namespace, Node, install, namespace, node, why_not

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.xdist_group("real-exo-0-3"),
]

VARIANTS = ("numpy", "onnx")
PROMPTS = ("The capital of France?", "7 + 5 =", "Köln, déjà vu, 日本語 and an emoji: 🙂")
TOKENS = 40


@dataclass(frozen=True)
class Host:
    """An environment with exo 0.3 and plugins, a model, and what it answers."""

    python: Path
    folder: Path
    answers: dict[str, str]

    def command(self, variant: str) -> tuple[str | Path, ...]:
        """Starts exo with a plugin."""
        return (self.python, "-m", f"exo_{variant}", "exo", "--place", "none")

    def settings(self) -> dict[str, str]:
        """Where the model is."""
        return {f"EXO_{variant.upper()}_FOLDERS": str(self.folder) for variant in VARIANTS}

    def model(self, variant: str) -> str:
        """The model's id in exo."""
        return f"exo_{variant}/{MODEL if self.folder.name == REPOSITORY else self.folder.name}"


MODEL, REPOSITORY = "smollm2-135m-instruct", "SmolLM2-135M-Instruct"


def _random_model(python: Path, folder: Path) -> dict[str, str]:
    """Write a random checkpoint, and ask `generate` for its answers."""
    code = "import sys; from pathlib import Path; "
    code += "from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint as write; "
    code += "write(Path(sys.argv[1]), DEFAULT)"
    subprocess.run([python, "-c", code, folder], check=True)
    answers = {}
    for prompt in PROMPTS:
        command = [python, "-m", "exo_numpy", "generate", prompt, "--model", folder]
        done = subprocess.run(
            [*map(str, command), "--max-tokens", str(TOKENS)], capture_output=True, check=True
        )
        answers[prompt] = done.stdout.decode("utf-8").removesuffix("\n")
    return answers


@pytest.fixture(scope="module")
def host(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """exo with a plugin of each variant that computes here."""
    folder = tmp_path_factory.mktemp("real-0-3")
    plugins = [
        render_into(template, folder / f"exo-{variant}", variant=variant) for variant in VARIANTS
    ]
    python = install(folder / "venv", *plugins, needs=("onnxruntime",))
    if model := os.environ.get("EXO_REAL_MODEL"):
        answers = json.loads(Path(os.environ["EXO_REAL_ANSWERS"]).read_text(encoding="utf-8"))
        return Host(python, Path(model), {each["prompt"]: each["text"] for each in answers})
    model_folder = folder / "random-model"
    return Host(python, model_folder, _random_model(python, model_folder))


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A network of their own."""
    with namespace() as own:
        yield own


@pytest.fixture(scope="module", params=VARIANTS)
def placed(
    request: pytest.FixtureRequest,
    host: Host,
    space: Namespace,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Node, str]]:
    """A node on which the variant's model is ready."""
    variant: str = request.param
    home = tmp_path_factory.mktemp(f"node-{variant}")
    with node(space, home, *host.command(variant), **host.settings()) as started:
        started.place(host.model(variant))
        yield started, host.model(variant)


def ready(started: Node) -> bool | None:
    """True once a runner waits for requests."""
    return "RunnerReady" in started.statuses().values() or None


def test_answers_are_the_model_s_to_the_letter(placed: tuple[Node, str], host: Host) -> None:
    started, model = placed
    for prompt, text in host.answers.items():
        assert started.text(model, prompt, max_tokens=TOKENS) == text
        answer = started.stream(model, prompt, max_tokens=TOKENS)
        assert answer.text == text
        assert answer.finish in ("stop", "length")
        assert answer.usage is not None
        assert answer.usage["completion_tokens"] <= TOKENS


def test_answers_at_once_are_those_alone(placed: tuple[Node, str], host: Host) -> None:
    started, model = placed
    prompts = [*host.answers, *host.answers][:4]
    with ThreadPoolExecutor(len(prompts)) as pool:
        run = [pool.submit(started.stream, model, p, max_tokens=TOKENS) for p in prompts]
        texts = [each.result().text for each in run]
    assert texts == [host.answers[prompt] for prompt in prompts]


def test_every_api_of_exo_has_the_model(placed: tuple[Node, str], host: Host) -> None:
    started, model = placed
    [prompt, text] = next(iter(host.answers.items()))
    messages = [{"role": "user", "content": prompt}]
    common = {"model": model, "temperature": 0}
    options = {"num_predict": TOKENS, "temperature": 0}
    bodies = {
        "/v1/messages": {"messages": messages, "max_tokens": TOKENS},
        "/v1/responses": {"input": prompt, "max_output_tokens": TOKENS},
        "/ollama/api/chat": {"messages": messages, "stream": False, "options": options},
    }
    for path, body in bodies.items():
        status, reply = started.request("POST", path, common | body)
        assert status == 200, (path, reply)
        assert json.dumps(text) in json.dumps(reply), path


def test_a_client_that_goes_away_frees_the_device_within_a_second(
    placed: tuple[Node, str], host: Host
) -> None:
    started, model = placed
    started.stream(model, "Tell a long story.", most=2, max_tokens=4000)
    started.wait_for("free device", lambda: ready(started), seconds=1.0)
    prompt, text = next(iter(host.answers.items()))
    assert started.text(model, prompt, max_tokens=TOKENS) == text


def test_a_request_that_fails_says_why_and_the_next_is_answered(
    placed: tuple[Node, str], host: Host
) -> None:
    started, model = placed
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
    prompt, text = next(iter(host.answers.items()))
    for options, words in (
        ({"messages": messages}, "takes text alone"),
        ({"messages": [{"role": "user", "content": "x " * 60_000}]}, "the prompt is too long"),
    ):
        answer = started.stream(model, "", **options)
        assert words in (answer.error or ""), answer.events
        status, reply = started.request("POST", "/v1/chat/completions", {"model": model} | options)
        assert status == 500
        assert words in reply["error"]["message"]
        assert started.text(model, prompt, max_tokens=TOKENS) == text


def test_every_api_of_exo_says_why_an_answer_failed(placed: tuple[Node, str]) -> None:
    started, model = placed
    messages = [{"role": "user", "content": "x " * 60_000}]
    bodies = {
        "/v1/messages": {"messages": messages, "max_tokens": 5},
        "/v1/responses": {"input": messages[0]["content"]},
        "/ollama/api/chat": {"messages": messages, "stream": False},
        "/ollama/api/generate": {"prompt": messages[0]["content"], "stream": False},
    }
    for path, body in bodies.items():
        status, reply = started.request("POST", path, {"model": model} | body)
        assert status == 500, path
        assert "the prompt is too long" in reply["error"]["message"], path


def test_a_killed_runner_is_told_and_comes_back(placed: tuple[Node, str], host: Host) -> None:
    started, model = placed
    [runner] = started.runners()
    answers = []
    client = threading.Thread(
        target=lambda: answers.append(started.stream(model, "A long story.", max_tokens=4000))
    )
    client.start()
    started.wait_for("answer", lambda: "RunnerRunning" in started.statuses().values() or None)
    os.kill(runner, signal.SIGKILL)
    client.join(60)
    assert answers, "the client still waits"
    assert answers[0].error
    started.wait_for("another runner", lambda: started.runners() not in ([], [runner]) or None)
    started.wait_for("ready runner", lambda: ready(started))
    prompt, text = next(iter(host.answers.items()))
    assert started.text(model, prompt, max_tokens=TOKENS) == text


def test_a_deleted_instance_leaves_no_process(placed: tuple[Node, str]) -> None:
    started, model = placed
    [instance] = started.get("/state")["instances"]
    started.delete(instance)
    started.wait_for("end of its process", lambda: not started.runners() or None)
    started.place(model)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_node_that_ends_takes_its_runners_along(
    host: Host, space: Namespace, tmp_path: Path, how: signal.Signals
) -> None:
    with node(space, tmp_path, *host.command("numpy"), **host.settings()) as started:
        started.place(host.model("numpy"))
        [runner] = started.runners()
        started.stop(how)
        until = time.monotonic() + 10
        while Path(f"/proc/{runner}").exists() and time.monotonic() < until:
            time.sleep(0.05)  # another process's end can't be awaited
        assert not Path(f"/proc/{runner}").exists()


def test_an_unmodified_node_is_the_master_of_a_plugin_s(
    host: Host, space: Namespace, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        plain = stack.enter_context(node(space, tmp_path / "plain"))
        plugin = stack.enter_context(
            node(
                space,
                tmp_path / "plugin",
                *host.command("numpy"),
                peer=plain,
                **host.settings(),
            )
        )

        def both() -> bool | None:
            state = plain.get("/state")
            return (state is not None and len(state["topology"]["nodes"]) == 2) or None

        plain.wait_for("topology of two", both)
        model = host.model("numpy")
        plugin.place(model, where=plugin)
        for prompt, text in host.answers.items():
            for started_node in (plain, plugin):
                assert started_node.stream(model, prompt, max_tokens=TOKENS).text == text
        assert not plain.runners()
        plain.stop()
        plugin.wait_for("another master", lambda: _master_of(plugin))
        plugin.place(model, where=plugin)  # a new master begins without instances
        prompt, text = next(iter(host.answers.items()))
        assert plugin.text(model, prompt, max_tokens=TOKENS) == text


def _master_of(started: Node) -> bool | None:
    state = started.get("/state")
    alone = state is not None and len(state["topology"]["nodes"]) == 1
    return (alone and not state["instances"]) or None


def test_two_plugins_answer_on_one_node(host: Host, space: Namespace, tmp_path: Path) -> None:
    with node(space, tmp_path, *host.command("onnx"), **host.settings()) as started:
        listed = {model["id"] for model in started.get("/v1/models")["data"]}
        assert {host.model(variant) for variant in VARIANTS} <= listed
        for variant in VARIANTS:
            started.place(host.model(variant))
        prompt, text = next(iter(host.answers.items()))
        for variant in VARIANTS:
            assert started.text(host.model(variant), prompt, max_tokens=TOKENS) == text
        maps = [Path(f"/proc/{runner}/maps").read_text() for runner in started.runners()]
        own = Path(f"/proc/{started.process.pid}/maps").read_text()
        assert sorted("onnxruntime" in each for each in maps) == [False, True]
        assert "onnxruntime" not in own


def test_exo_s_own_models_are_there_where_they_are_asked_for(
    host: Host, space: Namespace, tmp_path: Path
) -> None:
    command = host.command("numpy")

    def listed(started: Node) -> set[str]:
        models = started.get("/v1/models")["data"]
        return {model["id"].partition("/")[0] for model in models}

    with node(space, tmp_path / "own", *command, **host.settings()) as started:
        assert listed(started) <= {"exo_numpy", "exo_onnx"}
    with node(space, tmp_path / "all", *command, "--all-models", **host.settings()) as started:
        started.wait_for("exo's models", lambda: "mlx-community" in listed(started) or None)
