"""Many requests on a real exo 0.0, a third of whose clients go away: right answers, and no leak.

On two nodes the one with the first layers is killed now and then. SOAK times as many requests.
"""

import os
import signal
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from client_0_0 import Reply, wait
from fixtures_0_0 import SOAK
from host_0_0 import EXO_PYTHON, WHY_NOT
from nodes_0_0 import Node
from world_0_0 import World

pytest_plugins = ("fixtures_0_0",)
pytestmark = [
    pytest.mark.skipif(not EXO_PYTHON, reason=WHY_NOT),
    pytest.mark.xdist_group("real-exo"),
]

LONG = "The quick brown fox jumps over the lazy dog. " * 25
QUESTIONS = ("What is an NPU?", "hello", LONG, "Say it in other words.", "日本語 🙂", LONG + "Why?")
REQUESTS = 60 * SOAK
CLIENTS = 4  # at once
WARM = 6  # looks at memory on the way; the first is after as many have come as later between two
SILENT_SECONDS = 5.0  # at most, between a node's death and the word of it
GROWTH = 10.0  # MB that a node may grow by after the first look, where there are thousands
HELD_BYTES = str(200 << 20)  # of ended answers: reached on the way, so that memory can be flat


class Load:
    """Clients that ask, one request after the other; every third one leaves in the middle."""

    def __init__(self, nodes: list[Node], apis: list[Node], answers: dict[str, str]) -> None:
        """asked: those of the nodes that are not killed."""
        self._nodes, self._apis, self._answers = nodes, apis, answers
        self._next, self._lock = count(), threading.Lock()
        self._over = threading.Event()
        self.kills: list[float] = []
        self.done, self.ended, self.wrong = 0, 0, list[str]()
        self.memory: list[list[float]] = []

    def run(self, kill: float) -> None:
        """All of them, in CLIENTS threads; kill: after how many seconds a node is, or 0."""
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
        while (n := next(self._next)) < REQUESTS:
            node = self._apis[n % len(self._apis)]
            question = QUESTIONS[n // 2 % len(QUESTIONS)]
            if n % 3 == 2:
                self._leave(node, question, n % 2 == 0)
            else:
                self._judge(question, node.ask(question, n % 2 == 0))
            with self._lock:
                self.done += 1
                if self.done % (REQUESTS // WARM) == 0:
                    self.memory.append([each.memory() for each in self._apis])

    def _leave(self, node: Node, question: str, stream: bool) -> None:
        client = node.client(question, stream)
        if stream:
            client.read(3)
        else:
            time.sleep(0.03)
        client.leave()

    def _judge(self, question: str, reply: Reply) -> None:
        """Right, or ended in time and in words by the death of a node."""
        right = self._answers[question]
        if reply.status == 200 and reply.text == right:
            return
        ended = time.monotonic()
        cause = max([ended - reply.seconds, *(kill for kill in self.kills if kill < ended)])
        begin, mark, _ = reply.text.partition("\n[exo_")
        is_sentence = reply.status in (500, 503) or (mark and right.startswith(begin))
        if self.kills and is_sentence and ended - cause < SILENT_SECONDS:
            self.ended += 1
        else:
            self.wrong.append(f"{reply.status} after {reply.seconds:.1f} s: {reply.text[-120:]!r}")


@pytest.mark.parametrize("size", [1, 2])
def test_many_requests_are_answered_and_nothing_grows(world: World, size: int) -> None:
    settings = {f"EXO_{world.host.variant.name.upper()}_CACHE_BYTES": HELD_BYTES}
    with world.ring(f"load-{size}", size, tokens=30, **settings) as nodes:
        answers = {question: nodes[0].ask(question).text for question in QUESTIONS}
        for node in nodes:
            for question in QUESTIONS:
                assert node.ask(question, True).text == answers[question]
        apis = nodes[:-1] if size > 1 else nodes
        before = [(len(node.metrics()), node.sockets()) for node in apis]
        load = Load(nodes, apis, answers)
        load.run(kill=5.0 * min(SOAK, 20) if size > 1 else 0.0)
        assert not load.wrong, load.wrong[:3]
        for n, node in enumerate(apis):
            check_flat(node, before[n], [each[n] for each in load.memory])
            ended = sum(node.outcomes().values())
            assert ended <= REQUESTS + len(QUESTIONS) * (1 + size), node.outcomes()
            assert "Traceback" not in node.log
        print(f"{size}: killed {len(load.kills)} times, {load.ended} ended in words", load.memory)


def check_flat(node: Node, before: tuple[int, int], memory: list[float]) -> None:
    """What must not grow: memory, requests, label sets, sockets."""
    assert wait(lambda: node.metrics() and not node.in_flight(), 5)
    assert not node.metrics().get('held_bytes{of="in_flight"}', 0.0)
    series, sockets = before
    assert len(node.metrics()) == series
    assert node.sockets() <= sockets + 8
    if SOAK > 20:  # else a pool or a cache is still being filled
        assert memory[-1] - memory[0] <= GROWTH, memory


def test_prometheus_answers_the_queries_of_the_readme(world: World, tmp_path: Path) -> None:
    import prometheus_0_0 as prometheus

    if why := prometheus.why_not():
        pytest.skip(why)
    if world.host.variant.name != "numpy":
        pytest.skip("the README's queries are the same in every variant")
    with world.ring("scraped", 2, tokens=60) as nodes:
        for node in nodes:
            assert not prometheus.lint(node)
        results = prometheus.scraped(nodes, world.host.plugin / "README.md", tmp_path)
        assert results["sum(up)"] == [2.0]
        assert all(values and all(map(prometheus.isfinite, values)) for values in results.values())


def test_sigterm_leaves_a_real_rkllama_whole(world: World) -> None:
    """The next answer is as quick after an end in the middle of one as after an idle end."""
    if world.host.variant.name != "rkllm" or not os.environ.get("RKLLAMA"):
        pytest.skip("RKLLAMA is not set")
    settings = {"RKLLM_SERVER_URL": os.environ["RKLLAMA"]}
    settings["RKLLM_MODEL"] = os.environ["RKLLAMA_MODEL"]
    took: dict[str, float] = {}
    for how in ("first", "idle", "stream", "whole", "last"):
        with world.ring(f"ends-{how}", 1, **settings) as [node]:
            reply = node.ask(QUESTIONS[0])
            assert reply.status == 200, reply
            took[how] = reply.seconds
            running = (
                node.later(QUESTIONS[0], how == "stream") if how in ("stream", "whole") else None
            )
            if running:
                time.sleep(0.1)
            node.send(signal.SIGTERM)
            assert node.gone(3.0)
            if running:
                reply = running.get()
                assert reply.status == 200 or reply.is_sentence(), reply
            assert f"/{node.variant.package}/" not in node.log
    assert max(took["stream"], took["whole"], took["last"]) < took["idle"] + 1.0, took
