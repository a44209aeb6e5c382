"""Nodes of a real exo that can be killed, stopped and started again, and clients that go away.

The plugin is the NumPy variant with a device that can be told to be slow, to fail and to hang.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import REPOSITORY, _files_of_template, render_into
from real_exo import EXO_PYTHON, environment, free_ports, get, get_text, install
from test_rendered_plugin import run

T = TypeVar("T")

PACKAGE = "exo_numpy"
MODEL, OTHER_MODEL = "smollm2-135m-instruct-numpy", "qwen3-0.6b-numpy"
MODELS = {"HuggingFaceTB--SmolLM2-135M-Instruct": 30, "Qwen--Qwen3-0.6B": 28}
# Of the variants whose device is a server: the engine, and where its model's tokenizer is.
SERVERS = {
    "rkllm": ("rkllama", "Qwen--Qwen2.5-1.5B-Instruct"),
    "openai": ("openai", "HuggingFaceTB--SmolLM2-135M-Instruct"),
}
START_SECONDS = 60.0
CAPABILITIES = {
    "model": "x",
    "chip": "x",
    "memory": 1000,
    "flops": {"fp32": 0, "fp16": 0, "int8": 0},
}

# Put behind backend.py: what the file at $SOAK_PLAY says happens to a step.
PLAYED = '''

import json
import os
import time


class Played(Backend):
    """A device that can be told to be slow, to fail and to hang."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: dict[str, int] = {}

    def step(self, request_id, x):
        n = self._steps[request_id] = self._steps.get(request_id, 0) + 1
        play = self.play()
        time.sleep(play.get("seconds", 0) + (play.get("prefill", 0) if x.shape[1] > 1 else 0))
        if n == play.get("fails_at"):
            raise RuntimeError("the device lost its memory")
        self.hang()
        return super().step(request_id, x)

    def hang(self):
        until = time.monotonic() + 120
        while self.play().get("hangs") and time.monotonic() < until:
            time.sleep(0.02)

    def forget(self, request_id):
        self._steps.pop(request_id, None)
        super().forget(request_id)

    def close(self):
        loaded = self._model is not None
        super().close()
        if loaded:
            with open(os.environ["SOAK_PLAY"] + ".closed", "a") as file:
                file.write("closed\\n")

    @staticmethod
    def play():
        with open(os.environ["SOAK_PLAY"]) as file:
            return json.loads(file.read() or "{}")


Backend = Played
'''


@dataclass(frozen=True)
class Reply:
    """What a client got; finish is None where nobody said why the answer ended."""

    status: int
    text: str
    finish: str | None
    seconds: float
    events: int = 0


class Client:
    """One chat completion, read as it comes."""

    def __init__(
        self,
        api: str,
        question: str | list[dict[str, str]],
        *,
        stream: bool,
        model: str = MODEL,
        seconds: float = 60.0,
    ) -> None:
        """question: a text, or the messages of a chat."""
        self._begun = time.monotonic()
        self._stream = stream
        asked = [{"role": "user", "content": question}] if isinstance(question, str) else question
        body = {"model": model, "stream": stream, "messages": asked}
        at = urlsplit(api)
        self._connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=seconds)
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        self._texts: list[str] = []
        self._finish: str | None = None
        self._reply: http.client.HTTPResponse | None = None

    def read(self, events: int = 1 << 30) -> int:
        """Read this many events of a stream, or all; how many came."""
        self._reply = self._reply or self._connection.getresponse()
        if not self._stream or self._reply.status != 200:
            return 0
        came = 0
        while came < events and (line := self._reply.readline()):
            if not line.startswith(b"data: "):
                continue
            came += 1
            choice = json.loads(line[6:])["choices"][0]
            self._texts.append(choice["delta"].get("content") or "")
            self._finish = choice["finish_reason"] or self._finish
        return came

    def rest(self) -> Reply:
        """Read to the end."""
        events = self.read()
        assert self._reply is not None
        status, finish = self._reply.status, self._finish
        if self._stream and status == 200:
            text = "".join(self._texts)
        else:
            told = self._reply.read().decode()
            text = told
            if status == 200:
                choice = json.loads(told)["choices"][0]
                text, finish = choice["message"]["content"], choice["finish_reason"]
        self._connection.close()
        return Reply(status, text, finish, time.monotonic() - self._begun, events)

    def leave(self) -> None:
        """Go away, with a reset as a closed laptop's or with a plain end."""
        with suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._reply is not None:
            self._reply.close()
        self._connection.close()


def ask(api: str, question: str, stream: bool = False, **options: Any) -> Reply:
    """One answer; a status of 0 where the connection broke, -1 where the time was over."""
    begun = time.monotonic()
    try:
        return Client(api, question, stream=stream, **options).rest()
    except TimeoutError:
        return Reply(-1, "no answer in time", None, time.monotonic() - begun)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(0, repr(error), None, time.monotonic() - begun)


class Later(threading.Thread):
    """An answer in the background."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(daemon=True)
        self._given = args, named
        self._reply: Reply | None = None
        self.start()

    def run(self) -> None:
        args, named = self._given
        self._reply = ask(*args, **named)

    def get(self, seconds: float = 60.0) -> Reply:
        """The answer."""
        self.join(seconds)
        return self._reply or Reply(-1, "no answer in time", None, seconds)


def wait(ask_: Callable[[], T | None], seconds: float = START_SECONDS) -> T | None:
    """What a call gives once it gives something that is true; None where the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if got := ask_():
            return got
        time.sleep(0.02)
    return None


@dataclass
class Node:
    """One node: its process, or none."""

    name: str
    api: str
    command: list[str]
    settings: dict[str, str]
    folder: Path
    package: str = PACKAGE
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    settings_now: dict[str, str] = field(default_factory=dict)

    @property
    def play_file(self) -> Path:
        """What its device plays."""
        return self.folder / f"{self.name}.play"

    @property
    def log(self) -> str:
        """All that it said."""
        return (self.folder / f"{self.name}.log").read_text("utf-8", "replace")

    def play(self, **what: float) -> None:
        """Tell its device what to do from now on."""
        other = self.play_file.with_suffix(".new")
        other.write_text(json.dumps(what))
        other.replace(self.play_file)

    def start(self, **settings: str) -> None:
        """Start the process; don't wait for it."""
        self.starts += 1
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                env=environment(**self.settings, **settings),
                cwd=self.folder,
            )

    def send(self, which: signal.Signals) -> None:
        """A signal to this node's own process."""
        assert self.process is not None
        self.process.send_signal(which)

    def gone(self, seconds: float = 10.0) -> float | None:
        """How long it takes to go away."""
        assert self.process is not None
        begun = time.monotonic()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - begun

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
            self.process.wait(10)

    def sees(self) -> int:
        """How many nodes it believes in."""
        return len((get(f"{self.api}/v1/topology") or {}).get("nodes", {}))

    def closed(self) -> int:
        """How often a loaded device was closed."""
        file = Path(f"{self.play_file}.closed")
        return len(file.read_text().splitlines()) if file.exists() else 0

    def metrics(self) -> dict[str, float]:
        """This plugin's figures, by name and labels."""
        try:
            lines = get_text(f"{self.api}/metrics").splitlines()
        except OSError:
            return {}
        found = (line.rsplit(" ", 1) for line in lines if line.startswith(self.package))
        return {name.removeprefix(f"{self.package}_"): float(value) for name, value in found}

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how, whatever the cause."""
        total: dict[str, int] = {}
        for name, value in self.metrics().items():
            if name.startswith("requests_total{"):
                outcome = name.split('outcome="')[1].split('"')[0]
                total[outcome] = total.get(outcome, 0) + int(value)
        return total

    def memory(self) -> float:
        """Its resident memory in MB."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def sockets(self) -> int:
        """How many files and sockets it has open."""
        assert self.process is not None
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


class World:
    """An environment with exo and the plugin, and nodes in it."""

    def __init__(
        self,
        folder: Path,
        smollm2: Path | None = None,
        tokenizer: Path | None = None,
        variant: str = "numpy",
        played: bool = True,
    ) -> None:
        """tokenizer: of the first model of a variant whose device is a server, and not played."""
        if not EXO_PYTHON:
            raise SystemExit("EXO_PYTHON is not set to the Python of an environment with exo")
        self.folder = folder
        template = folder / "template"
        for name in _files_of_template():
            source = REPOSITORY / name
            if source.is_file():
                (template / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, template / name)
        plugin = render_into(template, folder / f"exo-{variant}", variant=variant)
        self.checkpoints = folder / "checkpoints"
        self.package, self.engine = f"exo_{variant}", variant
        if tokenizer is not None:
            self.python = install(plugin, folder)
            self.engine, name = SERVERS[variant]
            (self.checkpoints / name).mkdir(parents=True)
            for path in tokenizer.glob("*.json"):
                shutil.copy(path, self.checkpoints / name)
            return
        if played:
            with (plugin / PACKAGE / "backend.py").open("a", encoding="utf-8") as backend:
                backend.write(PLAYED)
        self.python = install(plugin, folder)
        code = (
            "import sys; from pathlib import Path; "
            "from exo_numpy.kit.llama.random_checkpoint import DEFAULT, write_checkpoint; "
            "write_checkpoint(Path(sys.argv[1]), DEFAULT | {'num_hidden_layers': int(sys.argv[2])})"
        )
        for name, layers in MODELS.items():
            if smollm2 is not None and layers == 30:
                (self.checkpoints / name).mkdir(parents=True)
                for path in smollm2.iterdir():
                    (self.checkpoints / name / path.name).symlink_to(path)
            else:
                run(self.python, "-c", code, self.checkpoints / name, str(layers))

    @contextmanager
    def ring(
        self, name: str, size: int, *, start: int | None = None, tokens: int = 200, **more: str
    ) -> Iterator[list[Node]]:
        """Nodes that know of each other; the first of them started, and complete."""
        folder = self.folder / name
        folder.mkdir()
        ports = free_ports(2 * size)
        config = folder / "peers.json"
        peers = {
            f"node{n}": {
                "address": "127.0.0.1",
                "port": ports[n],
                "device_capabilities": CAPABILITIES,
            }
            for n in range(size)
        }
        config.write_text(json.dumps({"peers": peers}), encoding="utf-8")
        nodes = [
            self._node(folder, f"node{n}", ports[n], ports[size + n], config, tokens, more)
            for n in range(size)
        ]
        try:
            begun = nodes[: size if start is None else start]
            for node in begun:
                node.start()
            if not wait(lambda: all(node.sees() == len(begun) for node in begun)):
                raise RuntimeError("\n".join(node.log[-3000:] for node in begun))
            yield nodes
        finally:
            for node in nodes:
                node.end()

    def _node(
        self,
        folder: Path,
        name: str,
        port: int,
        api: int,
        config: Path,
        tokens: int,
        more: dict[str, str],
    ) -> Node:
        home = folder / f"home-{name}"
        (home / "downloads").mkdir(parents=True)
        (home / "tmp").mkdir()
        for path in self.checkpoints.iterdir():
            shutil.copytree(path, home / "downloads" / path.name, symlinks=True)
        command = [str(self.python), "-c", "from exo.main import run; run()"]
        command += ["--inference-engine", self.engine, "--disable-tui", "--node-id", name]
        command += ["--node-host", "127.0.0.1", "--node-port", str(port)]
        command += ["--discovery-module", "manual", "--discovery-config-path", str(config)]
        command += ["--chatgpt-api-port", str(api), "--max-generate-tokens", str(tokens)]
        command += ["--chatgpt-api-response-timeout", "40"]
        node = Node(name, f"http://127.0.0.1:{api}", command, {}, folder, self.package)
        node.settings = {
            "EXO_HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "SOAK_PLAY": str(node.play_file),
        } | more
        node.play()
        return node


@dataclass
class Table:
    """Case, what was seen, and what is allowed."""

    over: int = 0

    def row(self, case: str, seen: object, bound: str, well: bool) -> None:
        """Show one case."""
        self.over += not well
        shown = f"{seen:.2f}" if isinstance(seen, float) else str(seen)
        print(f"{'ok  ' if well else 'OVER'} | {case:<58} | {shown:<40} | {bound}", flush=True)

    def most(self, case: str, seen: float | None, bound: float, unit: str = "s") -> None:
        """Show a figure that may be this much at most."""
        shown = "never" if seen is None else f"{seen:.2f} {unit}"
        self.row(case, shown, f"{bound:g} {unit} at most", seen is not None and seen <= bound)

    def true(self, case: str, well: bool, seen: object = "") -> None:
        """Show what has to be so."""
        self.row(case, seen if seen != "" else ("yes" if well else "no"), "yes", well)
