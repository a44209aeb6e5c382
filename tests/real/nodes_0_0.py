"""One node of a real exo 0.0, which can be killed, stopped and started again."""

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_0_0 import Client, Later, Reply, ask
from host_0_0 import Variant, environment, get, get_text


@dataclass
class Node:
    """One node: its process, or none."""

    name: str
    api: str
    command: list[str]
    settings: dict[str, str]
    folder: Path
    variant: Variant
    process: subprocess.Popen[bytes] | None = None

    @property
    def play_file(self) -> Path:
        """What its device plays."""
        return self.folder / f"{self.name}.play"

    @property
    def log(self) -> str:
        """All that it said."""
        return (self.folder / f"{self.name}.log").read_text("utf-8", "replace")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What an AnswerBackend's device was given."""
        file = Path(f"{self.play_file}.asked")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def play(self, **what: float) -> None:
        """Tell its device what to do from now on."""
        other = self.play_file.with_suffix(".new")
        other.write_text(json.dumps(what))
        other.replace(self.play_file)

    def start(self, **options: Any) -> None:
        """Start the process; don't wait for it."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment(**self.settings),
                cwd=self.folder,
                **({"stdout": log, "stderr": log} | options),
            )

    def start_into_a_pipe(self) -> Any:
        """Start the process; the end of its output's pipe that is read."""
        reader, writer = os.pipe()
        self.start(stdout=writer, stderr=writer)
        os.close(writer)
        return open(reader, "rb")

    def send(self, which: signal.Signals) -> None:
        """A signal to this node's own process."""
        assert self.process is not None
        self.process.send_signal(which)

    def gone(self, seconds: float = 10.0) -> bool:
        """Whether it goes away in time."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

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
        package = self.variant.package
        own = (line.rsplit(" ", 1) for line in lines if line.startswith(package))
        return {name.removeprefix(f"{package}_"): float(value) for name, value in own}

    def in_flight(self) -> int:
        """How many requests its engine holds."""
        return int(self.metrics().get("requests_in_flight", 0))

    def outcomes(self) -> dict[str, int]:
        """How many requests ended how, whatever the cause."""
        total = dict.fromkeys(("finished", "failed", "cancelled", "evicted"), 0)
        for name, value in self.metrics().items():
            if name.startswith("requests_total{"):
                outcome = name.split('outcome="')[1].split('"')[0]
                total[outcome] += int(value)
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

    def ask(
        self, question: Any, stream: bool = False, model: int = 0, seconds: float = 60
    ) -> Reply:
        """One answer of its API; model: which of the variant's."""
        return ask(self.api, self.variant.ids[model], question, stream, seconds)

    def later(self, question: Any, stream: bool = False) -> Later:
        """One answer in the background."""
        return Later(self.api, self.variant.ids[0], question, stream)

    def client(self, question: Any, stream: bool = False) -> Client:
        """A client that has asked."""
        return Client(self.api, self.variant.ids[0], question, stream)
