"""Many requests on a real exo, a third of whose clients go away: right answers, and no leak.

Run by hand, in an environment with this repository's test extra, EXO_PYTHON set as for
tests/test_real_exo.py:

    python tests/soak/load.py [--requests 3000] [--two 600] [--smollm2 FOLDER]

Prints case, what was seen and its bound, and ends with 1 when one is over.
"""

import argparse
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from nodes import Client, Node, Table, World, ask, wait

QUESTIONS = ("What is an NPU?", "hello", "Say it in other words.", "日本語 🙂")
CLIENTS = 4  # at once
WARM = 1 / 6  # of the requests come before the first look at memory


class Load:
    """Clients that ask, one request after the other; every third one leaves in the middle."""

    def __init__(self, nodes: list[Node], requests: int, answers: dict[str, str]) -> None:
        self._nodes, self._requests, self._answers = nodes, requests, answers
        self._next, self._lock = count(), threading.Lock()
        self.done, self.left, self.wrong = 0, 0, list[str]()
        self.memory: list[list[float]] = []

    def run(self) -> None:
        """All of them, in CLIENTS threads."""
        threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        while (n := next(self._next)) < self._requests:
            node, question = self._nodes[n % len(self._nodes)], QUESTIONS[n // 2 % len(QUESTIONS)]
            if n % 3 == 2:
                client = Client(node.api, question, stream=n % 2 == 0)
                if n % 2 == 0:
                    client.read(3)
                else:
                    time.sleep(0.03)
                client.leave()
                self.left += 1
            else:
                reply = ask(node.api, question, n % 2 == 0)
                if reply.status != 200 or reply.text != self._answers[question]:
                    self.wrong.append(f"{reply.status} {reply.text[-80:]!r}")
            with self._lock:
                self.done += 1
                if self.done % int(self._requests * WARM) == 0:
                    self.memory.append([each.memory() for each in self._nodes])


def series(node: Node) -> int:
    """How many time series this plugin has."""
    return len(node.metrics())


def run(world: World, table: Table, size: int, requests: int) -> None:
    """One ring under load."""
    with world.ring(f"load{size}", size, tokens=30) as nodes:
        answers = {question: ask(nodes[0].api, question).text for question in QUESTIONS}
        for node in nodes:
            for question in QUESTIONS:
                assert ask(node.api, question, True).text == answers[question]
        before = [(series(node), node.sockets()) for node in nodes]
        begun = time.monotonic()
        load = Load(nodes, requests, answers)
        load.run()
        took = time.monotonic() - begun
        name = f"{requests} requests on {size}"
        table.row(f"{name}: took", f"{took:.0f} s, {load.left} clients left", "", True)
        table.true(f"{name}: wrong answers", not load.wrong, load.wrong[:3] or 0)
        first, last = load.memory[0], load.memory[-1]
        for n, node in enumerate(nodes):
            course = " ".join(f"{each[n]:.0f}" for each in load.memory)
            table.row(f"{name}: memory of {node.name} on the way", course, "MB", True)
        for node, a, b in zip(nodes, first, last, strict=True):
            table.most(f"{name}: memory of {node.name} grew", b - a, 10, "MB")
        held = wait(lambda: all(n.metrics()["requests_in_flight"] == 0 for n in nodes), 5)
        table.true(f"{name}: nothing is held", bool(held))
        held_bytes = [node.metrics()['held_bytes{of="in_flight"}'] for node in nodes]
        table.true(f"{name}: no bytes are held", not any(held_bytes), held_bytes)
        after = [(series(node), node.sockets()) for node in nodes]
        table.true(f"{name}: label sets are flat", [a[0] for a in after] == [b[0] for b in before])
        grown = max(a[1] - b[1] for a, b in zip(after, before, strict=True))
        table.most(f"{name}: open sockets grew", grown, 8, "sockets")
        for node in nodes:
            outcomes = node.outcomes()
            table.row(f"{name}: outcomes on {node.name}", outcomes, "", True)
            table.true(f"{name}: none failed", not outcomes["failed"] + outcomes["evicted"])
            total = requests + len(QUESTIONS) * (1 + size)
            ended = sum(outcomes.values())
            table.row(f"{name}: each counted once", ended, f"{total} at most", ended <= total)
            tail = [line for line in node.log.splitlines() if "ERROR" in line or "Trace" in line]
            table.true(f"{name}: no error in the log", not tail, tail[:3] or "yes")


def main() -> int:
    """One node, then two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000, help="on one node")
    parser.add_argument("--two", type=int, default=600, help="on two nodes")
    parser.add_argument("--smollm2", type=Path, help="a folder with SmolLM2-135M-Instruct")
    options = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        world = World(Path(name), options.smollm2)
        for size, requests in ((1, options.requests), (2, options.two)):
            if requests:
                run(world, table, size, requests)
    print(f"{table.over} over")
    return int(table.over > 0)


if __name__ == "__main__":
    sys.exit(main())
