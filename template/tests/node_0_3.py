"""A node of the stand-in for exo 0.3, started by the plugin's command.

It is a process of its own: the two exos share one module name.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

from plugin import PACKAGE

STAND_IN = Path(__file__).parent / "standin_0_3"
SECONDS = 60.0  # for anything that a node does
Event = dict[str, Any]


def path(*before: Path | str) -> str:
    """A PYTHONPATH: these folders, the stand-in, and what this process has."""
    own = [each for each in sys.path if each and Path(each).name != "standin"]
    return os.pathsep.join(map(str, [*before, STAND_IN, *own]))


@dataclass
class Answer:
    """What came of one request."""

    events: list[Event] = field(default_factory=list)

    def _chunks(self) -> list[dict[str, Any]]:
        return [event["more"] for event in self.events if event["what"].endswith("Chunk")]

    @property
    def text(self) -> str:
        """Its text, without the reasoning."""
        return "".join(c.get("text", "") for c in self._chunks() if not c.get("is_thinking"))

    @property
    def reasoning(self) -> str:
        """Its reasoning."""
        return "".join(c.get("text", "") for c in self._chunks() if c.get("is_thinking"))

    @property
    def last(self) -> dict[str, Any]:
        """The last chunk, which has the counts."""
        return self._chunks()[-1]

    @property
    def error(self) -> str | None:
        """The sentence of an answer that failed."""
        return next((c["error_message"] for c in self._chunks() if "error_message" in c), None)

    @property
    def end(self) -> str:
        """FinishedResponse or CancelledResponse."""
        return str(self.events[-1]["what"])


class Node:
    """Says to the node what to do, and keeps what it says, in order."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process, self._log = process, log
        self.events: list[Event] = []
        self._numbers = count(1)
        self._queue: Queue[Event | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    @property
    def log(self) -> str:
        """What it and its runners wrote to stderr."""
        return self._log.read_text(encoding="utf-8")

    def send(self, **command: Any) -> None:
        """One command of exo/main.py."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def until(self, is_it: Callable[[Event], bool]) -> list[Event]:
        """The events up to the one that is waited for."""
        seen: list[Event] = []
        while not seen or not is_it(seen[-1]):
            event = self._queue.get(timeout=SECONDS)
            assert event is not None, f"the node ended:\n{self.log}"
            seen.append(event)
        self.events += seen
        return seen

    def gone(self) -> None:
        """Wait until neither it nor a runner of it lives: nobody holds its stdout any more."""
        while self._queue.get(timeout=SECONDS) is not None:
            pass

    def wait_for(self, what: str) -> Event:
        """Wait until it says this."""
        return self.until(lambda event: event["what"] == what)[-1]

    def cards(self) -> dict[str, dict[str, Any]]:
        """The cards of its models, by their ids."""
        self.send(cards=True)
        return {card["model_id"]: card for card in self.wait_for("cards")["more"]}

    def modules(self) -> list[str]:
        """What its own process has imported, not its runner."""
        self.send(modules=True)
        return list(self.wait_for("modules")["more"])

    def place(self, model_id: str) -> int:
        """Start a model, and wait until it is ready; its process."""
        self.send(place=model_id)
        pid = int(self.wait_for("pid")["more"])
        self.until(lambda event: event["what"] in ("RunnerReady", "RunnerFailed"))
        return pid

    def answers(self, *tasks: str) -> dict[str, Answer]:
        """What comes of these requests, until each has ended."""
        replies = {task: Answer() for task in tasks}
        ends = ("FinishedResponse", "CancelledResponse")
        while not all(each.events and each.end in ends for each in replies.values()):
            [*_, event] = self.until(lambda event: event["task"] in replies)
            replies[event["task"]].events.append(event)
        return replies

    def ask(self, content: str = "Hi", task: str = "", **params: Any) -> Answer:
        """One request, greedy where `params` say nothing else."""
        task = task or f"task {next(self._numbers)}"
        messages = [{"role": "user", "content": content}]
        fields = {"chat_template_messages": messages, "temperature": 0.0, "max_output_tokens": 40}
        self.send(ask=task, **fields | params)
        return self.answers(task)[task]


@contextmanager
def node(folder: Path, *arguments: str, python_path: str = "", **settings: str) -> Iterator[Node]:
    """A node whose models and log are in this folder; its stdin is closed at the end."""
    log = folder / "node.log"
    own = {"PYTHONPATH": python_path or path(), "EXO_DEFAULT_MODELS_DIR": str(folder / "models")}
    command = [sys.executable, "-m", PACKAGE, "exo", "--place", "none", *arguments]
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | own | settings,
            cwd=folder,  # -m takes modules of the folder that it is run in first
            text=True,
        )
    started = Node(process, log)
    try:
        started.wait_for("node")
        yield started
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
