"""Many requests on a real exo, a third of whose clients go away: right answers, and no leak.

Run by hand, in an environment with this repository's test extra, EXO_PYTHON set as for
tests/test_real_exo.py:

    python tests/soak/load.py [--requests 10000] [--two 10000] [--smollm2 FOLDER] [--kill 120]

On two nodes the second one is killed every so many seconds, and started again. With --server URL
and --tokenizer FOLDER it is the openai variant, whose model SmolLM2-135M-Instruct that server has;
without, the NumPy one. Prints case, what was seen and its bound, and ends with 1 when one is over.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from nodes import MODEL, Client, Node, Reply, Table, World, ask, wait

LONG = "The quick brown fox jumps over the lazy dog. " * 25
QUESTIONS = ("What is an NPU?", "hello", LONG, "Say it in other words.", "日本語 🙂", LONG + "Why?")
CLIENTS = 4  # at once
WARM = 1 / 6  # of the requests come before the first look at memory
SILENT_SECONDS = 5.0  # at most, between a node's death and the word of it
KEPT_BYTES = str(200 << 20)  # of ended answers: reached on the way, so that memory can be flat


class Load:
    """Clients that ask, one request after the other; every third one leaves in the middle."""

    def __init__(
        self,
        nodes: list[Node],
        stay: list[Node],
        variant: str,
        requests: int,
        answers: dict[str, str],
    ) -> None:
        """stay: those of the nodes that are asked, and not killed."""
        self._nodes, self._stay, self._variant = nodes, stay, variant
        self._requests, self._answers = requests, answers
        self._next, self._lock = count(), threading.Lock()
        self._over = threading.Event()
        self.kills: list[float] = []
        self.done, self.left, self.ended, self.wrong = 0, 0, 0, list[str]()
        self.memory: list[list[float]] = []

    def run(self, kill: float) -> None:
        """All of them, in CLIENTS threads; kill: after how many seconds the last node is, or 0."""
        threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        killer = threading.Thread(target=self._kill, args=(self._nodes[-1], kill))
        for thread in threads:
            thread.start()
        if kill:
            killer.start()
        for thread in threads:
            thread.join()
        self._over.set()
        if kill:
            killer.join()

    def _kill(self, node: Node, seconds: float) -> None:
        """End a node as a power failure would, and start it again a little later."""
        while not self._over.wait(seconds):
            self.kills.append(time.monotonic())
            node.send(signal.SIGKILL)
            node.gone()
            time.sleep(2)
            node.start()
            wait(lambda: all(each.sees() == len(self._nodes) for each in self._nodes))

    def _client(self) -> None:
        while (n := next(self._next)) < self._requests:
            node = self._stay[n % len(self._stay)]
            question = QUESTIONS[n // 2 % len(QUESTIONS)]
            if n % 3 == 2:
                self._leave(node, question, n % 2 == 0)
            else:
                self._judge(
                    question, ask(node.api, question, n % 2 == 0, model=model_of(self._variant))
                )
            with self._lock:
                self.done += 1
                if self.done % int(self._requests * WARM) == 0:
                    self.memory.append([each.memory() for each in self._stay])

    def _leave(self, node: Node, question: str, stream: bool) -> None:
        client = Client(node.api, question, stream=stream, model=model_of(self._variant))
        if stream:
            client.read(3)
        else:
            time.sleep(0.03)
        client.leave()
        self.left += 1

    def _judge(self, question: str, reply: Reply) -> None:
        """Right, or ended in time and in words by the death of a node."""
        right = self._answers[question]
        if reply.status == 200 and reply.text == right:
            return
        ended = time.monotonic()
        cause = max([ended - reply.seconds, *(kill for kill in self.kills if kill < ended)])
        begin, mark, _ = reply.text.partition(f"\n[exo_{self._variant}: ")
        told = reply.status in (500, 503) or (mark and right.startswith(begin))
        if self.kills and told and ended - cause < SILENT_SECONDS:
            self.ended += 1
        else:
            self.wrong.append(f"{reply.status} after {reply.seconds:.1f} s: {reply.text[-120:]!r}")


def model_of(variant: str) -> str:
    """The model's id in exo."""
    return MODEL.replace("-numpy", f"-{variant}")


def series(node: Node) -> int:
    """How many time series this plugin has."""
    return len(node.metrics())


def run(
    world: World, table: Table, size: int, requests: int, kill: float, settings: dict[str, str]
) -> None:
    """One ring under load; kill: after how many seconds its last node is, again and again, or 0."""
    with world.ring(f"load{size}", size, tokens=30, **settings) as nodes:
        model = model_of(world.engine)
        answers = {q: ask(nodes[0].api, q, model=model).text for q in QUESTIONS}
        for node in nodes:
            for question in QUESTIONS:
                assert ask(node.api, question, True, model=model).text == answers[question]
        stay = nodes[:-1] if kill else nodes
        before = [(series(node), node.sockets()) for node in stay]
        begun = time.monotonic()
        load = Load(nodes, stay, world.engine, requests, answers)
        load.run(kill)
        took = time.monotonic() - begun
        name = f"{requests} requests on {size}"
        table.row(f"{name}: took", f"{took:.0f} s, {load.left} clients left", "", True)
        if kill:
            seen = f"{len(load.kills)} times, which ended {load.ended} answers in words"
            table.row(f"{name}: a node was killed", seen, "", True)
        table.true(f"{name}: wrong or silent answers", not load.wrong, load.wrong[:3] or 0)
        flat(table, name, stay, load, before)
        for node in stay:
            counted(table, name, node, requests + len(QUESTIONS) * (1 + size), bool(kill))


def flat(
    table: Table, name: str, nodes: list[Node], load: Load, before: list[tuple[int, int]]
) -> None:
    """What must not grow: memory, requests, label sets, sockets."""
    for n, node in enumerate(nodes):
        course = " ".join(f"{each[n]:.0f}" for each in load.memory)
        table.row(f"{name}: memory of {node.name} on the way", course, "MB", True)
        grown = load.memory[-1][n] - load.memory[0][n]
        table.most(f"{name}: memory of {node.name} grew", grown, 10, "MB")
    held = wait(lambda: all(n.metrics()["requests_in_flight"] == 0 for n in nodes), 5)
    table.true(f"{name}: nothing is held", bool(held))
    held_bytes = [node.metrics().get('held_bytes{of="in_flight"}', 0.0) for node in nodes]
    table.true(f"{name}: no bytes are held", not any(held_bytes), held_bytes)
    after = [(series(node), node.sockets()) for node in nodes]
    table.true(f"{name}: label sets are flat", [a[0] for a in after] == [b[0] for b in before])
    grown = max(a[1] - b[1] for a, b in zip(after, before, strict=True))
    table.most(f"{name}: open sockets grew", grown, 8, "sockets")


def counted(table: Table, name: str, node: Node, most: int, killed: bool) -> None:
    """What a node says of its requests, its batches and what it took over."""
    outcomes, metrics = node.outcomes(), node.metrics()
    table.row(f"{name}: outcomes on {node.name}", outcomes, "", True)
    ended = sum(outcomes.values())
    table.row(f"{name}: each counted once", ended, f"{most} at most", ended <= most)
    batch = metrics["batch_size_sum"] / (metrics["batch_size_count"] or 1)
    shown = f"{batch:.2f} steps together, {metrics['reuse_hits_total']:.0f} prompts taken over"
    table.row(f"{name}: batches and reuse on {node.name}", shown, "", True)
    marks = ("Trace",) if killed else ("Trace", "ERROR")
    lines = [line for line in node.log.splitlines() if any(mark in line for mark in marks)]
    table.true(f"{name}: no error in the log", not lines, lines[:3] or "yes")
    if not killed:
        table.true(f"{name}: none failed", not outcomes["failed"] + outcomes["evicted"])


def main() -> int:
    """One node, then two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10000, help="on one node")
    parser.add_argument("--two", type=int, default=10000, help="on two nodes")
    parser.add_argument("--smollm2", type=Path, help="a folder with SmolLM2-135M-Instruct")
    parser.add_argument("--kill", type=float, default=120.0, help="seconds, or 0 for never")
    parser.add_argument("--server", help="the URL of an OpenAI-compatible server")
    parser.add_argument("--tokenizer", type=Path, help="a folder with its model's tokenizer")
    options = parser.parse_args()
    table, variant, settings = Table(), "numpy", {"EXO_NUMPY_CACHE_BYTES": KEPT_BYTES}
    if options.server:
        variant, settings = "openai", {"EXO_OPENAI_URL": options.server}
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        world = World(Path(name), options.smollm2, options.tokenizer, variant)
        for size, requests in ((1, options.requests), (2, options.two)):
            if requests:
                run(world, table, size, requests, options.kill if size > 1 else 0, settings)
    print(f"{table.over} over")
    return int(table.over > 0)


if __name__ == "__main__":
    sys.exit(main())
