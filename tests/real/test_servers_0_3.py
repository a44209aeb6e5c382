"""Plugins in front of real servers on a real exo 0.3: the server's own text, on one node and two.

    RKLLAMA_START       a command line that starts an rkllama, {namespace} and {port} in it
    RKLLAMA_MODEL       its model, RKLLAMA_TEXT what that answers
    LLAMA_SERVER_START  likewise a llama-server with SmolLM2-135M-Instruct in F32

EXO_REAL_MODEL is a folder with that model, whose tokenizer both have; EXO_REAL_ANSWERS its greedy
answers, as for test_exo_0_3.py.
"""

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from conftest import render_into
from nodes_0_3 import Namespace, Node, install, namespace, node, why_not

pytestmark = [
    pytest.mark.skipif(bool(why := why_not()), reason=str(why)),
    pytest.mark.skipif("EXO_REAL_MODEL" not in os.environ, reason="EXO_REAL_MODEL is not set"),
    pytest.mark.xdist_group("real-exo-0-3"),
]

PORT = 8080
FOLDER = "SmolLM2-135M-Instruct"
START_SECONDS = 60.0
PROMPTS, TOKENS = ("The capital of France?", "Köln, 日本語 and an emoji: 🙂"), 40
ANSWERS = 2  # of a real model's: a CPU takes its time
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "config.json")


@dataclass(frozen=True)
class Server:
    """A variant's real server: how it is started, whether it is up, and what the plugin needs."""

    variant: str
    start: str  # an environment variable
    ready: str  # a path that answers 200 then

    def settings(self) -> dict[str, str]:
        """The plugin's."""
        url = f"http://127.0.0.1:{PORT}"
        if self.variant == "openai":
            return {"EXO_OPENAI_URL": url}
        return {"RKLLM_SERVER_URL": url, "RKLLM_MODEL": os.environ["RKLLAMA_MODEL"]}

    def answers(self) -> dict[str, str]:
        """What it says to each prompt."""
        if self.variant == "rkllm":
            return dict.fromkeys(PROMPTS, os.environ["RKLLAMA_TEXT"])
        entries = json.loads(Path(os.environ["EXO_REAL_ANSWERS"]).read_text(encoding="utf-8"))
        return {each["prompt"]: each["text"] for each in entries[:ANSWERS]}

    @contextmanager
    def running(self, space: Namespace) -> Iterator[None]:
        """The server, until the end."""
        line = os.environ[self.start].format(namespace=space.name, port=PORT)
        process = subprocess.Popen(shlex.split(line))
        try:
            until = time.monotonic() + START_SECONDS
            while not space.call(self._is_up):
                assert process.poll() is None, f"{line} has ended"
                assert time.monotonic() < until, f"{line} does not answer"
                time.sleep(0.1)  # a server tells nobody that it is up
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _is_up(self) -> bool:
        connection = HTTPConnection("127.0.0.1", PORT, timeout=5)
        try:
            connection.request("GET", self.ready)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


SERVERS = (
    Server("rkllm", "RKLLAMA_START", "/api/version"),
    Server("openai", "LLAMA_SERVER_START", "/health"),
)


def check(node: Node, model: str, answers: dict[str, str]) -> None:
    """Streamed and not, the texts are the server's to the letter."""
    for prompt, text in answers.items():
        assert node.text(model, prompt, max_tokens=TOKENS) == text
        answer = node.stream(model, prompt, max_tokens=TOKENS)
        assert (answer.text, answer.error) == (text, None)
        assert answer.finish in ("stop", "length")


def listed(node: Node, name: str) -> str | None:
    """A model's id as the node lists it, whatever its case."""
    ids = [model["id"] for model in node.get("/v1/models")["data"]]
    return next((each for each in ids if each.lower() == name.lower()), None)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.variant)
def test_a_server_s_answers_are_its_own_to_the_letter(
    template: Path, tmp_path: Path, server: Server
) -> None:
    if server.start not in os.environ:
        pytest.skip(f"{server.start} is not set")
    variant = server.variant
    plugin = render_into(template, tmp_path / f"exo-{variant}", variant=variant)
    python = install(tmp_path / "venv", plugin)
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in TOKENIZER:
        shutil.copy(Path(os.environ["EXO_REAL_MODEL"]) / name, folder)
    prefix = {"rkllm": "EXO_RKLLAMA_", "openai": "EXO_OPENAI_"}[variant]
    settings = server.settings() | {f"{prefix}FOLDERS": str(folder)}
    command = (python, "-m", f"exo_{variant}", "exo", "--place", "none")
    answers = server.answers()
    with ExitStack() as stack:
        space = stack.enter_context(namespace())
        stack.enter_context(server.running(space))
        own = stack.enter_context(node(space, tmp_path / "own", *command, **settings))
        model = own.wait_for("card", lambda: listed(own, f"exo_{variant}/{FOLDER}"))
        own.place(model)
        check(own, model, answers)
        plain = stack.enter_context(node(space, tmp_path / "plain", peer=own))
        plain.wait_for("ready runner", lambda: "RunnerReady" in plain.statuses().values() or None)
        check(plain, model, answers)
        assert not plain.runners()
