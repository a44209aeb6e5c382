"""Rings of nodes of a real exo 0.0, with a variant's plugin.

The device can be told to be slow, to fail and to hang: it is the variant's own backend with a play
around it, in front of its own played server where it needs one.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_0_0 import wait
from host_0_0 import Host, Variant, environment, free_ports, make_host, process
from nodes_0_0 import Node

START_SECONDS = 120.0
ANSWER_TIMES = 16  # the six pieces of a played server's answer
CAPABILITIES = {
    "model": "x",
    "chip": "x",
    "memory": 1000,
    "flops": {"fp32": 0, "fp16": 0, "int8": 0},
}

# Put behind backend.py: what the file at $SOAK_PLAY says happens to a step, or to a piece.
PLAYED = '''

import asyncio
import json
import os
import time


class Played(Backend):
    """A device that can be told to be slow, to fail and to hang."""

    def __init__(self):
        super().__init__()
        self._steps, self._was_loaded = {}, False

    def step(self, request_id, x):
        n = self._steps[request_id] = self._steps.get(request_id, 0) + 1
        play = self.play()
        time.sleep(play.get("seconds", 0) + (play.get("prefill", 0) if x.shape[1] > 1 else 0))
        if n == play.get("fails_at"):
            raise RuntimeError("the device lost its memory")
        until = time.monotonic() + 120
        while self.play().get("hangs") and time.monotonic() < until:
            time.sleep(0.02)
        return super().step(request_id, x)

    def forget(self, request_id):
        self._steps.pop(request_id, None)
        super().forget(request_id)

    def said_closed(self):
        if self._was_loaded and "SOAK_PLAY" in os.environ:
            with open(os.environ["SOAK_PLAY"] + ".closed", "a") as file:
                file.write("closed\\n")
        self._was_loaded = False

    @staticmethod
    def play():
        if "SOAK_PLAY" not in os.environ:
            return {}
        with open(os.environ["SOAK_PLAY"]) as file:
            return json.loads(file.read() or "{}")

'''
PLAYED_STEPS = """
    def load(self, *args):
        super().load(*args)
        self._was_loaded = True

    def close(self):
        super().close()
        self.said_closed()


Backend = Played
"""
PLAYED_ANSWERS = """
    async def load(self, *args):
        await super().load(*args)
        self._was_loaded = True

    async def close(self):
        await super().close()
        self.said_closed()

    async def answer(self, request):
        if "SOAK_PLAY" in os.environ:
            with open(os.environ["SOAK_PLAY"] + ".asked", "a") as file:
                file.write(json.dumps({"id": request.id, "messages": request.messages}) + "\\n")
        await asyncio.sleep(self.play().get("prefill", 0))
        n = 0
        async for piece in super().answer(request):
            n += 1
            play = self.play()
            await asyncio.sleep(play.get("seconds", 0))
            if n == play.get("fails_at"):
                raise RuntimeError("the device lost its memory")
            while self.play().get("hangs"):
                await asyncio.sleep(0.02)
            yield piece


Backend = Played
"""


@dataclass
class World:
    """An environment with exo and a variant's plugin, and nodes in it."""

    host: Host
    folder: Path
    checkpoints: Path
    settings: dict[str, str] = field(default_factory=dict)
    server: "subprocess.Popen[str] | None" = None  # that plays the device

    @contextmanager
    def ring(
        self,
        name: str,
        size: int,
        *,
        start: int | None = None,
        tokens: int = 200,
        seconds: int = 40,
        **more: str,
    ) -> Iterator[list[Node]]:
        """Nodes that know of each other; the first of them started, and complete.

        exo gives the first layers to the last of them: it sorts by memory, then by name, from the
        largest down. tokens, seconds: exo's limits of an answer, and of its silence.
        """
        limits = ["--max-generate-tokens", str(tokens)]
        limits += ["--chatgpt-api-response-timeout", str(seconds)]
        folder = self.folder / name
        folder.mkdir()
        ports = free_ports(2 * size)
        peers = {
            f"node{n}": {"address": "127.0.0.1", "port": ports[n]}
            | {"device_capabilities": CAPABILITIES}
            for n in range(size)
        }
        (folder / "peers.json").write_text(json.dumps({"peers": peers}), encoding="utf-8")
        nodes = [
            self._node(folder, f"node{n}", ports[n], ports[size + n], limits, more)
            for n in range(size)
        ]
        try:
            begun = nodes[: size if start is None else start]
            for node in begun:
                node.start()
            if not wait(lambda: all(node.sees() == len(begun) for node in begun), START_SECONDS):
                raise RuntimeError("\n".join(node.log[-3000:] for node in begun))
            yield nodes
        finally:
            for node in nodes:
                node.end()

    def _node(
        self, folder: Path, name: str, port: int, api: int, limits: list[str], more: dict[str, str]
    ) -> Node:
        home = folder / f"home-{name}"
        (home / "tmp").mkdir(parents=True)  # exo keeps lists of the hub's files in /tmp
        shutil.copytree(self.checkpoints, home / "downloads", symlinks=True)
        variant = self.host.variant
        command = [str(self.host.python), "-c", "from exo.main import run; run()"]
        command += ["--inference-engine", variant.engine_name, "--disable-tui", "--node-id", name]
        command += ["--node-host", "127.0.0.1", "--node-port", str(port)]
        command += ["--discovery-module", "manual", "--discovery-config-path", "peers.json"]
        command += ["--chatgpt-api-port", str(api), *limits]
        settings = {"EXO_HOME": str(home), "TMPDIR": str(home / "tmp")} | self.settings | more
        node = Node(name, f"http://127.0.0.1:{api}", command, settings, folder, variant)
        settings["SOAK_PLAY"] = str(node.play_file)
        node.play()
        return node


@contextmanager
def make_world(
    template: Path, folder: Path, variant: Variant, model: Path | None = None, played: bool = True
) -> Iterator[World]:
    """An installed variant with its models: random ones, or a real one in the first one's place."""
    play = PLAYED + (PLAYED_ANSWERS if variant.has_server else PLAYED_STEPS) if played else ""
    if variant.has_server:
        play = play.replace(_between(PLAYED, "    def step", "    def said_closed"), "")
    host = make_host(template, folder, variant, play)
    checkpoints = folder / "checkpoints"
    for n, (_, repository, layers) in enumerate(variant.models):
        write_model(
            host, checkpoints / repository.replace("/", "--"), layers, model if not n else None
        )
    with ExitStack() as stack:
        world = World(host, folder, checkpoints)
        if variant.has_server and played:
            world.server, world.settings = stack.enter_context(served(host, folder))
        yield world


def _between(text: str, first: str, then: str) -> str:
    return text[text.index(first) : text.index(then)]


def write_model(host: Host, folder: Path, layers: int, model: Path | None) -> None:
    """A small model of random weights, a server's tokenizer, or links to a real model."""
    folder.parent.mkdir(exist_ok=True)
    if model is not None:
        folder.mkdir()
        for path in model.iterdir():
            (folder / path.name).symlink_to(path)
    elif host.variant.has_server:
        code = "import sys, tokenizers_for_tests as t; from pathlib import Path; "
        host.run(code + "t.byte_level_bpe(Path(sys.argv[1]))", folder)
    else:
        code = (
            f"import sys; from pathlib import Path; from {host.variant.package}.kit.llama."
            "random_checkpoint import DEFAULT, write_checkpoint; "
            "write_checkpoint(Path(sys.argv[1]), DEFAULT | {'num_hidden_layers': int(sys.argv[2])})"
        )
        host.run(code, folder, str(layers))


@contextmanager
def served(host: Host, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    """A plugin's own played server, in a process of its own, and the settings that lead to it."""
    script = host.plugin / "tests" / "server.py"
    names = [repository.rpartition("/")[2] for _, repository, _ in host.variant.models]
    command = [host.python, script, "--times", str(ANSWER_TIMES), "--tokens-per-second", "150"]
    for name in names:
        command += ["--model", name]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "env": environment()}
    log = folder / "server.log"
    with process(*command, log=log, **options) as server:
        line = server.stdout.readline()
        assert line.startswith("http://"), f"the played server gave no URL: {line}{log.read_text()}"
        name = "EXO_OPENAI_URL" if host.variant.name == "openai" else "RKLLM_SERVER_URL"
        yield server, {name: line.strip()}
