"""The rendered plugin on a real exo: its tests, one node, and a cluster of two on loopback.

Set EXO_PYTHON to the Python of an environment that has exo with plugin support. Nothing is
installed into that environment: the tests make one of their own on top of it.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, TypeVar

import pytest
from test_rendered_plugin import build_wheel, python_of, run, run_its_tests, uv

T = TypeVar("T")

EXO_PYTHON = os.environ.get("EXO_PYTHON")
MODEL = "qwen2.5-1.5b-instruct-rkllama"
SERVED = "Qwen2.5-1.5B-Instruct"
START_SECONDS = 90.0
ANSWER_SECONDS = 60.0

pytestmark = [
    pytest.mark.skipif(
        not EXO_PYTHON, reason="EXO_PYTHON is not set to the Python of an environment with exo"
    ),
    # With pytest-xdist's --dist loadgroup, the nodes of all these tests start on one worker.
    pytest.mark.xdist_group("real-exo"),
]


@dataclass(frozen=True)
class Host:
    """An environment with exo, the plugin's wheel and the plugin's tests."""

    python: Path
    plugin: Path


@pytest.fixture(scope="session")
def host(rkllm_plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """exo's packages, seen through a .pth file, and on top of them the wheel and pytest."""
    folder = tmp_path_factory.mktemp("real-exo")
    wheel = build_wheel(rkllm_plugin, folder / "dist")
    where = "import json, sysconfig as s; "
    where += "print(json.dumps([s.get_path(name) for name in ('purelib', 'platlib')]))"
    sites = dict.fromkeys(json.loads(run(EXO_PYTHON, "-c", where)))
    run(EXO_PYTHON, "-m", "venv", "--without-pip", folder / "venv")
    python = python_of(folder / "venv")
    [own, *_] = json.loads(run(python, "-c", where))
    lines = [f"import site; site.addsitedir({site!r})\n" for site in sites]
    (Path(own) / "exo.pth").write_text("".join(lines), encoding="utf-8")
    tools = ["pytest", "pytest-asyncio", "hypothesis", "iniconfig", "pluggy", "sortedcontainers"]
    install = [uv(), "pip", "install", "--quiet", "--no-deps", "--python", python]
    run(*install, wheel, *tools)
    return Host(python, rkllm_plugin)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings that would reach into exo or the plugin."""
    foreign = ("PYTHON", "VIRTUAL_ENV", "RKLLM_", "EXO_", "PYTEST_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"} | settings


@contextmanager
def process(*command: str | Path, log: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended at the end, politely and then not; its stderr goes to `log`."""
    with log.open("w", encoding="utf-8") as stderr:
        options.setdefault("stdout", stderr)
        started = subprocess.Popen(
            [str(part) for part in command], stderr=stderr, text=True, **options
        )
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(5)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(10)
            if started.stdout:
                started.stdout.close()


def wait_for(what: str, ask: Callable[[], T | None], alive: list[tuple[Any, Path]]) -> T:
    """What `ask` gives once it gives something; fails when a process ends or the time is over."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        answer = ask()
        if answer is not None:
            return answer
        for running, log in alive:
            assert running.poll() is None, f"ended before {what}:\n{log.read_text()[-4000:]}"
        time.sleep(0.05)
    logs = "\n".join(log.read_text()[-4000:] for _, log in alive)
    raise AssertionError(f"no {what} within {START_SECONDS} s\n{logs}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


# No proxy of the environment may get between these tests and loopback.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> Any | None:
    """The JSON at a URL; None where nobody answers yet."""
    try:
        with OPENER.open(url, timeout=5) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return None


def ask(api: str, question: str, stream: bool = False) -> bytes:
    """The body of a chat completion; the text of an HTTP error is part of the failure."""
    body = {
        "model": MODEL,
        "stream": stream,
        "messages": [{"role": "user", "content": question}],
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{api}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    try:
        with OPENER.open(request, timeout=ANSWER_SECONDS) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(f"HTTP {error.code}: {error.read().decode()}") from error


def whole_answer(api: str, question: str) -> tuple[str, str]:
    """The text and the finish reason of an answer that is not streamed."""
    choice = json.loads(ask(api, question))["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def streamed_answer(api: str, question: str) -> tuple[list[str], str]:
    """The pieces of text and the finish reason of an answer that is streamed."""
    lines = ask(api, question, stream=True).decode("utf-8").splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    choices = [json.loads(line)["choices"][0] for line in data if line != "[DONE]"]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1, data
    pieces = [choice["delta"].get("content") or "" for choice in choices]
    return [piece for piece in pieces if piece], reasons[0]


@pytest.fixture(scope="module")
def home(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An $EXO_HOME with the model's tokenizer among exo's downloads."""
    home = tmp_path_factory.mktemp("exo-home")
    folder = home / "downloads" / f"Qwen--{SERVED}"
    folder.mkdir(parents=True)
    code = "import sys; from pathlib import Path; import tokenizers_for_tests as t; "
    code += "t.byte_level_bpe(Path(sys.argv[1]))"
    run(host.python, "-c", code, folder, cwd=host.plugin / "tests")
    return home


@pytest.fixture(scope="module")
def device(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the plugin's own test server, in a process of its own."""
    script = host.plugin / "tests" / "server.py"
    log = tmp_path_factory.mktemp("server") / "log"
    command = [host.python, script, "--kind", "rkllama", "--model", SERVED]
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


@contextmanager
def cluster(host: Host, size: int, folder: Path, **settings: str) -> Iterator[list[str]]:
    """The API addresses of nodes on loopback that have found each other."""
    ports = free_ports(2 * size)
    grpc = {f"node{n}": ports[n] for n in range(size)}
    capabilities = {
        "model": "x",
        "chip": "x",
        "memory": 1000,
        "flops": {"fp32": 0, "fp16": 0, "int8": 0},
    }
    peers = {
        name: {"address": "127.0.0.1", "port": port, "device_capabilities": capabilities}
        for name, port in grpc.items()
    }
    config = folder / "peers.json"
    config.write_text(json.dumps({"peers": peers}), encoding="utf-8")
    code = "from exo.main import run; run()"
    with ExitStack() as stack:
        alive = []
        for (name, port), api in zip(grpc.items(), ports[size:], strict=True):
            arguments = ["--inference-engine", "rkllama", "--disable-tui", "--node-id", name]
            arguments += ["--node-host", "127.0.0.1", "--node-port", str(port)]
            arguments += ["--discovery-module", "manual", "--discovery-config-path", str(config)]
            arguments += ["--chatgpt-api-port", str(api), "--max-generate-tokens", "400"]
            arguments += ["--chatgpt-api-response-timeout", "30"]
            log = folder / f"{name}.log"
            command = [host.python, "-c", code, *arguments]
            env = environment(DEBUG="1", **settings)
            node = process(*command, log=log, env=env, cwd=folder)
            alive.append((stack.enter_context(node), log))
        apis = [f"http://127.0.0.1:{port}" for port in ports[size:]]

        def complete() -> bool | None:
            topologies = [get(f"{api}/v1/topology") for api in apis]
            full = all(t and len(t.get("nodes", {})) == size for t in topologies)
            return True if full else None

        wait_for(f"cluster of {size}", complete, alive)
        try:
            yield apis
        except Exception as error:
            for _, log in alive:
                error.add_note(f"--- {log.name}\n{log.read_text()[-6000:]}")
            raise


def check_answers(api: str) -> None:
    """Streamed and not, an answer comes from the server, whole and ended by the model."""
    text, reason = whole_answer(api, "What is an NPU?")
    assert text
    assert reason == "stop"
    pieces, reason = streamed_answer(api, "What is an NPU?")
    assert reason == "stop"
    assert len(pieces) > 1
    # exo decodes every token by itself, so a character of several tokens is not whole in a stream.
    if "\ufffd" not in "".join(pieces):
        assert "".join(pieces) == text
    again, _ = whole_answer(api, "And another question?")
    assert again


def test_the_plugins_own_tests_pass_on_the_real_exo(host: Host, tmp_path: Path) -> None:
    output = run_its_tests(host.python, host.plugin, tmp_path)
    assert "skipped" not in output.splitlines()[-1] or "stand-in" in output


def test_exo_loads_the_plugins_class_and_not_its_own(host: Host) -> None:
    code = (
        "from exo.inference.inference_engine import get_inference_engine;"
        "engine = get_inference_engine('rkllama', None);"
        "print(type(engine).__module__, type(engine).__name__)"
    )
    lines = run(host.python, "-c", code).splitlines()
    assert lines[-1] == "exo_rkllm.engine RkllamaInferenceEngine"


def test_a_node_answers(host: Host, home: Path, device: str, tmp_path: Path) -> None:
    with cluster(host, 1, tmp_path, EXO_HOME=str(home), RKLLM_SERVER_URL=device) as [api]:
        check_answers(api)
        with OPENER.open(f"{api}/metrics", timeout=5) as reply:
            assert b"\nexo_rkllm_" in reply.read()


def test_a_cluster_of_two_answers_at_both_nodes(
    host: Host, home: Path, device: str, tmp_path: Path
) -> None:
    with cluster(host, 2, tmp_path, EXO_HOME=str(home), RKLLM_SERVER_URL=device) as apis:
        for api in apis:
            check_answers(api)


def test_doctor_finds_all_well(host: Host, home: Path, device: str) -> None:
    script = shutil.which("exo-rkllm", path=str(host.python.parent))
    assert script
    done = subprocess.run(
        [script, "doctor"],
        env=environment(EXO_HOME=str(home), RKLLM_SERVER_URL=device),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with plugin support" in done.stdout
    assert "all known to exo" in done.stdout


def test_generate_answers_without_exo(host: Host, home: Path, device: str) -> None:
    done = subprocess.run(
        [host.python, "-m", "exo_rkllm", "generate", "What is an NPU?"],
        env=environment(EXO_HOME=str(home), RKLLM_SERVER_URL=device),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
