"""A real exo: an environment with a plugin on top of it, nodes and clusters on loopback.

EXO_PYTHON names the Python of an environment that has exo with plugin support. Nothing is installed
into that environment: the tests make one of their own on top of it.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from test_rendered_plugin import build_wheel, python_of, run, uv

T = TypeVar("T")

EXO_PYTHON = os.environ.get("EXO_PYTHON", "")
START_SECONDS = 90.0
ANSWER_SECONDS = 60.0
MOST_TOKENS = 60


@dataclass(frozen=True)
class Host:
    """An environment with exo and a plugin's wheel, and what that plugin is called there."""

    python: Path
    plugin: Path
    package: str
    engine_name: str
    engine_class: str
    model: str


def install(plugin: Path, folder: Path) -> Path:
    """A Python that sees exo's packages through a .pth file, with the plugin's wheel and pytest."""
    wheel = build_wheel(plugin, folder / "dist")
    where = "import json, sysconfig as s; "
    where += "print(json.dumps([s.get_path(name) for name in ('purelib', 'platlib')]))"
    sites = dict.fromkeys(json.loads(run(EXO_PYTHON, "-c", where)))
    run(EXO_PYTHON, "-m", "venv", "--without-pip", folder / "venv")
    python = python_of(folder / "venv")
    [own, *_] = json.loads(run(python, "-c", where))
    lines = [f"import site; site.addsitedir({site!r})\n" for site in sites]
    (Path(own) / "exo.pth").write_text("".join(lines), encoding="utf-8")
    tools = ["pytest", "pytest-asyncio", "iniconfig", "pluggy"]
    command = [uv(), "pip", "install", "--quiet", "--no-deps", "--python", python]
    run(*command, wheel, *tools, *missing(wheel))
    return python


def missing(wheel: Path) -> list[str]:
    """What exo's environment lacks for a plugin, as name==version; nothing of exo's may change."""
    told = run(uv(), "pip", "install", "--dry-run", "--python", EXO_PYTHON, wheel).splitlines()
    changed = [line for line in told if line.startswith(" - ")]
    assert not changed, f"the plugin changes exo's environment: {changed}"
    added = [line.removeprefix(" + ") for line in told if line.startswith(" + ")]
    return [
        each
        for each in added
        if "==" in each
        and "@" not in each
        and wheel.name.split("-")[0] != each.split("==")[0].replace("-", "_")
    ]


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


def get_text(url: str) -> str:
    """The text at a URL."""
    with OPENER.open(url, timeout=5) as reply:
        return str(reply.read().decode("utf-8"))


def get(url: str) -> Any | None:
    """The JSON at a URL; None where nobody answers yet."""
    try:
        with OPENER.open(url, timeout=5) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return None


def ask(api: str, model: str, question: str, stream: bool = False) -> bytes:
    """The body of a chat completion; the text of an HTTP error is part of the failure."""
    body = {
        "model": model,
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


def whole_answer(api: str, model: str, question: str) -> tuple[str, str]:
    """The text and the finish reason of an answer that is not streamed."""
    choice = json.loads(ask(api, model, question))["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def streamed_answer(api: str, model: str, question: str) -> tuple[list[str], str]:
    """The pieces of text and the finish reason of an answer that is streamed."""
    lines = ask(api, model, question, stream=True).decode("utf-8").splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    choices = [json.loads(line)["choices"][0] for line in data if line != "[DONE]"]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1, data
    pieces = [choice["delta"].get("content") or "" for choice in choices]
    return [piece for piece in pieces if piece], reasons[0]


@contextmanager
def cluster(host: Host, homes: list[Path], folder: Path, **settings: str) -> Iterator[list[str]]:
    """The API addresses of nodes on loopback that have found each other, one for each EXO_HOME."""
    size = len(homes)
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
        for (name, port), api, home in zip(grpc.items(), ports[size:], homes, strict=True):
            arguments = ["--inference-engine", host.engine_name, "--disable-tui"]
            arguments += ["--node-id", name]
            arguments += ["--node-host", "127.0.0.1", "--node-port", str(port)]
            arguments += ["--discovery-module", "manual", "--discovery-config-path", str(config)]
            arguments += ["--chatgpt-api-port", str(api), "--max-generate-tokens", str(MOST_TOKENS)]
            arguments += ["--chatgpt-api-response-timeout", "30"]
            log = folder / f"{name}.log"
            command = [host.python, "-c", code, *arguments]
            (home / "tmp").mkdir(exist_ok=True)  # exo keeps lists of the hub's files in /tmp
            own = {"EXO_HOME": str(home), "TMPDIR": str(home / "tmp")}
            env = environment(DEBUG="1", **own, **settings)
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
