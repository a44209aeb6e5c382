"""Nodes of a real exo 0.3 on this machine, in a network namespace that has `lo` alone.

EXO_0_3_PYTHON names the Python of an environment with exo 0.3, made without a Rust compiler:

    git clone https://github.com/exo-explore/exo
    python3.13 -m venv venv
    venv/bin/pip install (the dependencies of its pyproject.toml but exo-rs, and no extra)
    venv/bin/pip install tests/real/exo_rs
    venv/bin/pip install --no-deps -e exo

No setting keeps exo on loopback: its API and its binding listen everywhere, and it asks every
address of every node. A namespace does, which takes root and iproute2; the tests skip without.
"""

import ctypes
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from test_rendered_plugin import build_wheel, uv

T = TypeVar("T")

EXO_0_3_PYTHON = os.environ.get("EXO_0_3_PYTHON", "")
BINDING = Path(__file__).parent / "exo_rs"
START_SECONDS = 120.0
ANSWER_SECONDS = 120.0
_CLONE_NEWNET = 0x40000000  # <sched.h>
_ports = count(52415, 10)  # a node's API; its zenoh has the next one


def why_not() -> str | None:
    """Why no node can run here; None where one can."""
    if not EXO_0_3_PYTHON:
        return "EXO_0_3_PYTHON is not set to the Python of an environment with exo 0.3"
    if shutil.which("ip") is None or os.geteuid() != 0:
        return "a network namespace takes root and iproute2"
    done = subprocess.run(["ip", "netns", "add", "exo-probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "exo-probe"], capture_output=True)
    return None if done.returncode == 0 else f"no network namespace here: {done.stderr.strip()}"


@dataclass(frozen=True)
class Namespace:
    """A network of its own."""

    name: str

    def command(self, *command: str | Path) -> list[str]:
        """This command, run in here."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def call(self, function: Callable[[], T]) -> T:
        """What a function gives on a thread whose sockets are in here."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self.enter()
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def enter(self) -> None:
        """Move this thread, and no other, into here."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{self.name}") as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't enter {self.name}")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace with `lo` up, removed at the end."""
    name = f"exo-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        space = Namespace(name)
        subprocess.run(space.command("ip", "link", "set", "lo", "up"), check=True)
        yield space
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@dataclass
class Answer:
    """A streamed answer, and when each of its parts came, in seconds of time.monotonic()."""

    events: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def _joined(self, key: str) -> str:
        choices = [event["choices"][0] for event in self.events if event.get("choices")]
        return "".join(choice["delta"].get(key) or "" for choice in choices)

    @property
    def text(self) -> str:
        """All of its text."""
        return self._joined("content")

    @property
    def reasoning(self) -> str:
        """All of its reasoning."""
        return self._joined("reasoning_content")

    @property
    def finish(self) -> str | None:
        """Why it ended."""
        ends = [e["choices"][0].get("finish_reason") for e in self.events if e.get("choices")]
        return next((end for end in ends if end), None)

    @property
    def usage(self) -> dict[str, Any] | None:
        """Its counts of tokens."""
        return next((event["usage"] for event in self.events if event.get("usage")), None)

    @property
    def error(self) -> str | None:
        """The sentence that it ended with."""
        errors = [event["error"] for event in self.events if "error" in event]
        return str(errors[0].get("message", errors[0])) if errors else None


@dataclass
class Node:
    """One node. Its methods may be called on any thread."""

    space: Namespace
    port: int
    zenoh_port: int
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it has written, and its runners."""
        return (self.home / "log").read_text(encoding="utf-8", errors="replace")

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of one request; its text where it is no JSON."""
        return self.space.call(lambda: self._request(method, path, body))

    def _request(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read().decode("utf-8")
        finally:
            connection.close()
        try:
            return reply.status, json.loads(text)
        except ValueError:
            return reply.status, text

    def get(self, path: str) -> Any:
        """The JSON of a GET; None where nobody answers."""
        try:
            status, body = self.request("GET", path)
        except OSError:
            return None
        return body if status == 200 else None

    def chat(self, model: str, text: str, **options: Any) -> dict[str, Any]:
        """A chat completion that is not streamed; greedy where `options` say nothing else."""
        body = _chat_body(model, text, options)
        status, reply = self.request("POST", "/v1/chat/completions", body)
        assert status == 200, (status, reply)
        assert isinstance(reply, dict), f"an empty answer: exo says so where one failed: {reply!r}"
        return reply

    def text(self, model: str, text: str, **options: Any) -> str:
        """The text of that."""
        return str(self.chat(model, text, **options)["choices"][0]["message"]["content"])

    def stream(
        self,
        model: str,
        text: str,
        most: int | None = None,
        answer: Answer | None = None,
        **options: Any,
    ) -> Answer:
        """A chat completion that is streamed; the client hangs up after `most` events.

        answer: to be filled as the events come, for who wants to see them on another thread.
        """
        body, filled = _chat_body(model, text, options | {"stream": True}), answer or Answer()
        return self.space.call(lambda: self._stream(body, most, filled))

    def _stream(self, body: Any, most: int | None, answer: Answer) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            reply = connection.getresponse()
            assert reply.status == 200, (reply.status, reply.read())
            while line := reply.readline():
                data = line.decode("utf-8").strip().removeprefix("data: ")
                if not line.startswith(b"data: ") or data == "[DONE]":
                    continue
                answer.events.append(json.loads(data))
                answer.times.append(time.monotonic())
                if most is not None and len(answer.events) >= most:
                    break
        finally:
            connection.close()
        return answer

    def wait_for(self, what: str, ask: Callable[[], T | None], seconds: float = START_SECONDS) -> T:
        """What `ask` gives once it gives something."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if (answer := ask()) is not None:
                return answer
            assert self.process.poll() is None, f"ended before {what}:\n{self.log[-4000:]}"
            time.sleep(0.05)  # exo's API has nothing to wait for
        raise AssertionError(f"no {what} within {seconds:.0f} s\n{self.log[-6000:]}")

    def statuses(self) -> dict[str, str]:
        """The status of every runner that this node knows of."""
        runners = (self.get("/state") or {}).get("runners", {})
        return {name: next(iter(status)) for name, status in runners.items()}

    def place(self, model: str, where: "Node | None" = None) -> str:
        """Start an instance, on that node alone where one is named, and wait until it is ready."""
        before = set(self.get("/state")["instances"])
        if where is None:
            status, reply = self.request("POST", "/place_instance", {"model_id": model})
        else:
            node_id = where.wait_for("node id", lambda: where.get("/node_id"))
            query = f"/instance/previews?model_id={model}&node_ids={node_id}"

            def placement() -> Any | None:
                previews = (self.get(query) or {"previews": []})["previews"]
                return next((p["instance"] for p in previews if p["instance"]), None)

            instances = self.wait_for("placement on that node", placement)
            status, reply = self.request("POST", "/instance", {"instance": instances})
        assert status == 200, reply

        def ready() -> str | None:
            state = self.get("/state") or {"instances": {}, "runners": {}}
            for name in set(state["instances"]) - before:
                [instance] = state["instances"][name].values()
                runners = instance["shardAssignments"]["runnerToShard"]
                known = [next(iter(state["runners"].get(r, {"-": 0}))) for r in runners]
                if known and all(status == "RunnerReady" for status in known):
                    return str(name)
            return None

        return self.wait_for(f"instance of {model}", ready)

    def delete(self, instance: str) -> None:
        """End an instance, and wait until it and its runners are gone."""
        self.request("DELETE", f"/instance/{instance}")
        self.wait_for(
            "end of the instance",
            lambda: True if instance not in self.get("/state")["instances"] else None,
        )

    def runners(self) -> list[int]:
        """The process ids of its runners."""
        events = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                command = (stat.parent / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if int(fields[1]) == self.process.pid and b"spawn_main" in command:
                events.append(int(stat.parent.name))
        return events

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(30)


def install(folder: Path, *plugins: Path, needs: tuple[str, ...] = ()) -> Path:
    """A Python that sees exo's packages through a .pth file, with these plugins on top.

    needs: what they do not require by themselves. Nothing of exo's environment may change.
    """
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs = _run(EXO_0_3_PYTHON, "-c", site).strip()
    _run(EXO_0_3_PYTHON, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    line = f"import site; site.addsitedir({theirs!r})\n"
    (Path(_run(python, "-c", site).strip()) / "exo.pth").write_text(line, encoding="utf-8")
    wheels = [build_wheel(plugin, folder / "dist" / plugin.name) for plugin in plugins]
    dry = _run(uv(), "pip", "install", "--dry-run", "--python", EXO_0_3_PYTHON, *wheels, *needs)
    lines = dry.splitlines()
    changed = [line for line in lines if line.startswith(" - ")]
    assert not changed, f"the plugins change exo's environment: {changed}"
    added = [line[3:] for line in lines if line.startswith(" + ") and " @ " not in line]
    own = [wheel.name.split("-")[0] for wheel in wheels]
    added = [each for each in added if each.partition("==")[0].replace("-", "_") not in own]
    command = [uv(), "pip", "install", "--quiet", "--no-deps", "--python", python]
    _run(*command, *wheels, *added)
    return python


def _run(*command: str | Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _chat_body(model: str, text: str, options: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "max_tokens": 24, "temperature": 0}
    return body | {"messages": [{"role": "user", "content": text}]} | options


@contextmanager
def node(
    space: Namespace,
    home: Path,
    *command: str | Path,
    peer: Node | None = None,
    **settings: str,
) -> Iterator[Node]:
    """A node of exo, or of a plugin's `exo` where `command` is that; ended at the end."""
    port = next(_ports)
    for name in ("models", "dashboard"):
        (home / name).mkdir(parents=True, exist_ok=True)
    foreign = ("PYTHON", "VIRTUAL_ENV", "EXO_", "PYTEST_", "HF_", "RKLLM_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own |= {
        "PYTHONPATH": str(BINDING),
        "PYTHONUNBUFFERED": "1",
        "EXO_HOME": str(home),
        "EXO_DASHBOARD_DIR": str(home / "dashboard"),
        "EXO_DEFAULT_MODELS_DIR": str(home / "models"),
        "EXO_RS_LISTEN": f"tcp/127.0.0.1:{port + 1}",
        "HF_HUB_OFFLINE": "1",
    }
    if peer is not None:
        own["EXO_RS_CONNECT"] = f"tcp/127.0.0.1:{peer.zenoh_port}"
    start = command or (EXO_0_3_PYTHON, "-c", "from exo.main import main; main()")
    arguments = ["--offline", "--api-port", str(port), "--zenoh-port", str(port + 1)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            space.command(*start, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=own | settings,
            cwd=home,
        )
    started = Node(space, port, port + 1, home, process)
    try:
        started.wait_for("API", lambda: started.get("/v1/models"))
        yield started
    except Exception as error:
        error.add_note(f"--- {home}\n{started.log[-6000:]}")
        raise
    finally:
        try:
            started.stop()
        except subprocess.TimeoutExpired:
            started.stop(signal.SIGKILL)
