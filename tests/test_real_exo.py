"""The rendered plugins on a real exo: their tests, one node, and a cluster of two on loopback."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import hub
import pytest
from conftest import render_into
from real_exo import (
    EXO_PYTHON,
    MOST_TOKENS,
    START_SECONDS,
    Host,
    cluster,
    environment,
    get_text,
    install,
    process,
    streamed_answer,
    whole_answer,
)
from test_rendered_plugin import run, run_its_tests

pytestmark = [
    pytest.mark.skipif(
        not EXO_PYTHON, reason="EXO_PYTHON is not set to the Python of an environment with exo"
    ),
    # With pytest-xdist's --dist loadgroup, the nodes of all these tests start on one worker.
    pytest.mark.xdist_group("real-exo"),
]

QUESTION = "What is an NPU?"
ENGINES = {"numpy": "numpy", "rkllm": "rkllama"}
MODELS = {"numpy": "smollm2-135m-instruct-numpy", "rkllm": "qwen2.5-1.5b-instruct-rkllama"}
REPOSITORIES = {
    "numpy": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "rkllm": "Qwen/Qwen2.5-1.5B-Instruct",
}


@pytest.fixture(scope="session", params=ENGINES)
def variant(request: pytest.FixtureRequest) -> str:
    """Each variant of the template."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def host(variant: str, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """exo, with the variant's plugin on top of it."""
    folder = tmp_path_factory.mktemp(f"real-{variant}")
    plugin = render_into(template, folder / f"exo-{variant}", variant=variant)
    engine = ENGINES[variant]
    python = install(plugin, folder)
    engine_class = f"{engine.capitalize()}InferenceEngine"
    return Host(python, plugin, f"exo_{variant}", engine, engine_class, MODELS[variant])


@pytest.fixture(scope="session")
def checkpoint(host: Host, variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub has: a small model of random weights, or a tokenizer alone.

    The model has tied weights in two files: the last layers' node needs the first file too.
    """
    folder = tmp_path_factory.mktemp("checkpoint")
    code = {
        "numpy": "from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint; "
        "small = DEFAULT | {'num_hidden_layers': 30, 'tie_word_embeddings': True}; "
        "write_checkpoint(Path(sys.argv[1]), small, dtype='BF16', files=2)",
        "rkllm": "import tokenizers_for_tests as t; t.byte_level_bpe(Path(sys.argv[1]))",
    }[variant]
    code = f"import sys; from pathlib import Path; {code}"
    run(host.python, "-c", code, folder, cwd=host.plugin / "tests")
    return folder


@pytest.fixture
def homes(variant: str, checkpoint: Path, tmp_path: Path) -> list[Path]:
    """Two folders for $EXO_HOME, with a tokenizer; weights come from the hub."""
    made = [tmp_path / "home1", tmp_path / "home2"]
    for home in made:
        folder = home / "downloads" / REPOSITORIES[variant].replace("/", "--")
        folder.mkdir(parents=True)
        for path in checkpoint.glob("*.json"):
            if not path.name.endswith(".index.json"):
                shutil.copy(path, folder)
    return made


@pytest.fixture(scope="session")
def world(
    host: Host, variant: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The settings that lead a node to a hub and to a test server, each on loopback."""
    with hub.serve({REPOSITORIES[variant]: checkpoint}) as address:
        if variant == "numpy":
            yield {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
            return
        with serve_device(host, tmp_path_factory.mktemp("server") / "log") as device:
            yield {"HF_ENDPOINT": address, "RKLLM_SERVER_URL": device}


@contextmanager
def serve_device(host: Host, log: Path) -> Iterator[str]:
    """The URL of the RKLLM plugin's own test server, in a process of its own."""
    script = host.plugin / "tests" / "server.py"
    command = [host.python, script, "--kind", "rkllama", "--model", "Qwen2.5-1.5B-Instruct"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "env": environment()}
    with process(*command, log=log, **options) as server:
        lines: Queue[str] = Queue()
        Thread(target=lambda: lines.put(server.stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except Empty:
            raise AssertionError(f"the test server says nothing\n{log.read_text()}") from None
        words = [word for word in line.split() if word.startswith("http://")]
        assert words, f"the test server gave no URL: {line!r}\n{log.read_text()}"
        yield words[0]


def check_answers(host: Host, api: str) -> str:
    """Streamed and not, an answer comes whole, and a second one after it; the first's text."""
    text, reason = whole_answer(api, host.model, QUESTION)
    assert text
    assert reason in ("stop", "length")
    pieces, streamed_reason = streamed_answer(api, host.model, QUESTION)
    assert streamed_reason == reason
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert "<|im_end|>" not in text
    again, _ = whole_answer(api, host.model, "And another question?")
    assert again
    return text


def check_metrics(host: Host, apis: list[str]) -> None:
    """Every node that did something knows that all answers, three of each API, have ended."""
    answers = 3.0 * len(apis)
    whole_model = host.package == "exo_rkllm"  # one node does everything
    wanted = [0.0] * (len(apis) - 1) * whole_model + [answers] * (1 if whole_model else len(apis))
    until = time.monotonic() + 5
    while (found := sorted(ended_and_running(host, api) for api in apis)) != [
        (count, 0.0) for count in wanted
    ]:
        assert time.monotonic() < until, found
        time.sleep(0.05)


def ended_and_running(host: Host, api: str) -> tuple[float, float]:
    """How many requests a node has finished, and how many it has not."""
    lines = [line for line in get_text(f"{api}/metrics").splitlines() if line[0] != "#"]
    values = dict(line.rsplit(" ", 1) for line in lines if line.startswith(host.package))
    finished = values.get(f'{host.package}_requests_total{{cause="",outcome="finished"}}', 0)
    return float(finished), float(values[f"{host.package}_requests_in_flight"])


def generated(host: Host, home: Path, world: dict[str, str], *options: str) -> str:
    """The answer of the plugin's own command, without exo."""
    command = [host.python, "-m", host.package, "generate", QUESTION, *options]
    done = subprocess.run(
        [str(part) for part in command],
        env=environment(EXO_HOME=str(home), **world),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def test_the_plugins_own_tests_pass_on_the_real_exo(host: Host, tmp_path: Path) -> None:
    output = run_its_tests(host.python, host.plugin, tmp_path)
    skipped = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    assert all("asked over HTTP elsewhere" in line for line in skipped), output


def test_exo_loads_the_plugins_class_and_not_its_own(host: Host) -> None:
    code = (
        "from exo.inference.inference_engine import get_inference_engine;"
        f"engine = get_inference_engine({host.engine_name!r}, None);"
        "print(type(engine).__module__, type(engine).__name__)"
    )
    lines = run(host.python, "-c", code).splitlines()
    assert lines[-1] == f"{host.package}.engine {host.engine_class}"


def test_one_node_and_a_cluster_of_two_answer_with_the_same_text(
    host: Host,
    variant: str,
    homes: list[Path],
    checkpoint: Path,
    world: dict[str, str],
    tmp_path: Path,
) -> None:
    with cluster(host, homes[:1], tmp_path, **world) as [api]:
        alone = check_answers(host, api)
        check_metrics(host, [api])
    shutil.rmtree(homes[0] / "tmp")
    for path in homes[0].rglob("*.safetensors"):
        path.unlink()
    with cluster(host, homes, tmp_path, **world) as apis:
        assert [check_answers(host, api) for api in apis] == [alone, alone]
        check_metrics(host, apis)
    if variant == "numpy":
        options = ["--model", str(checkpoint), "--max-tokens", str(MOST_TOKENS)]
        assert generated(host, homes[0], world, *options) == alone


def test_doctor_finds_all_well(host: Host, homes: list[Path], world: dict[str, str]) -> None:
    script = shutil.which(f"exo-{host.package[4:]}", path=str(host.python.parent))
    assert script
    done = subprocess.run(
        [script, "doctor"],
        env=environment(EXO_HOME=str(homes[0]), **world),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with plugin support" in done.stdout
    assert "all known to exo" in done.stdout


@pytest.mark.parametrize("variant", ["rkllm"], indirect=True)
def test_generate_answers_without_exo(host: Host, homes: list[Path], world: dict[str, str]) -> None:
    assert generated(host, homes[0], world) == "Hello there, this is the NPU."
